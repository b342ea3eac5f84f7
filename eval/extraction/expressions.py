r"""The expression that a text gives as its answer, and the rule that found it.

The order of the rules follows s1's harness (the last `\boxed`, else what follows "Answer:", else the bare text), but
prose is no answer: where the harness would ask a judge model, there is none.
"""

from eval.equality.notation import plain
from eval.equality.shapes import Relation, shape_of
from eval.extraction.boxes import boxed_answer, completed_box
from eval.extraction.formulas import FORMULA_OPENS, last_formulas, on_one_line
from eval.extraction.found import LONGEST_EXPRESSION, Found
from eval.extraction.phrases import (
    CUE,
    FINAL_CUE,
    HEADING,
    INVERTED,
    LABEL,
    MOST_CUES,
    bare,
    closing_formula,
    first_sentence,
    mentioned,
    said_sentences,
    stated,
    structured,
)
from eval.extraction.text import (
    after_thinking,
    bounded,
    completing_line,
    ends_a_list,
    is_marked,
    lines_of,
    without_bullet,
)


def find_expression(text: str, cue: str = "") -> Found | None:
    """The expression that `text` gives as its answer, or None if it gives none.

    `cue` is what the engine wrote right before it, if the answer was forced: the model completes it, so the first
    expression after the cue is the answer.
    """
    text = on_one_line(bounded(text))
    if cue:
        completed = _completion(cue, text)
        return Found(completed, "cue") if completed is not None else _free_answer(text)
    return _free_answer(after_thinking(text)) or _free_answer(text)


def find_whole_number(text: str, cue: str = "") -> Found | None:
    """As `find_expression`, where every answer is a number: of an equation, its last side counts (`m + n = 204`)."""
    found = find_expression(text, cue)
    if found is None or len(found.expression) > LONGEST_EXPRESSION:
        return found
    shape = shape_of(plain(found.expression))
    last = shape.sides[-1] if isinstance(shape, Relation) and shape.equation else None
    return Found(last, found.rule) if last is not None and any(map(str.isdigit, last)) else found


def _completion(cue: str, text: str) -> str | None:
    r"""What completes `cue`: `The answer is \boxed{` by `5}`, `Final Answer:` by ` 5`."""
    first_line = completing_line(text)
    if (completed := completed_box(cue, text)) is not None:
        return completed or None
    boxed = boxed_answer(first_line)
    if boxed is not None:
        return boxed.content or None
    return None if is_marked(first_line) else stated(first_sentence(first_line))


def _free_answer(text: str) -> Found | None:
    boxed = boxed_answer(text)
    if boxed is not None:
        rule = "box" if boxed.boxes == 1 else "adjacent boxes"
        return Found(boxed.content, rule) if boxed.content else None
    if (given := structured(text)) is not None:
        inner = _free_answer(given) if boxed_answer(given) is not None or CUE.search(given) is not None else None
        return Found(inner.expression if inner is not None else given, "structured")
    for rule, pattern in (("final answer", FINAL_CUE), ("answer", CUE)):
        for sentence in said_sentences(text, pattern):
            if (said := stated(sentence) or mentioned(sentence)) is not None:
                return Found(said, rule)
    for pattern in (HEADING, LABEL):
        for sentence in said_sentences(text, pattern):
            if (said := stated(sentence)) is not None:
                return Found(said, "answer")
    for match in reversed(list(INVERTED.finditer(text))[-MOST_CUES:]):
        if (said := bare(match[1])) is not None:
            return Found(said, "answer")
    lines = lines_of(text)
    if not lines or ends_a_list(lines):
        return None
    if (last := _alone(lines[-1])) is not None:
        return Found(last, "last line")
    if len(lines) > 1 and (first := _alone(lines[0])) is not None:
        return Found(first, "first line")
    formula = closing_formula(lines[-1])
    return Found(formula, "formula") if formula is not None else None


def _alone(line: str) -> str | None:
    """The expression that `line` is, with nothing around it."""
    line = without_bullet(line)
    inner = line.strip("*_`#>. ")
    formulas = last_formulas(inner)
    if formulas is not None:
        covered = inner.startswith(FORMULA_OPENS) and stated(inner) == formulas
        return formulas if covered and len(inner) <= len(formulas) + 12 else None
    return bare(line)
