"""The letter that a text picks among the choices shown, and the rule that found it."""

import re
from collections.abc import Iterator, Sequence

from eval.extraction.boxes import boxed_answer, boxes_in, completed_box
from eval.extraction.choice_letters import SEVERAL, Pick, ShownChoices, unmarked
from eval.extraction.found import Found
from eval.extraction.phrases import HEADING, LONGEST_SENTENCE, MOST_CUES, first_sentence, structured
from eval.extraction.text import bounded, lines_of

_LINK = r"(?:is|was|be|are|ist|es|est)\b"
_CUE = re.compile(
    r"(?i)(?<![a-z])(?:answers?|antwort|respuesta|réponse|option|choice|response)\b"
    rf"(?! ?[(\[]?[a-j][)\]]?(?![a-z]))(?:[^.\n:]{{0,60}}?(?<![a-z]){_LINK}[: ]*| ?[:=→-] ?)"
    r"|答案 ?(?:是|为|:)[: ]*"
)


def find_choice(text: str, choices: Sequence[str], cue: str = "") -> Found | None:
    """The letter (A, B, ...) that `text` picks among `choices`, or None if it picks none or several.

    `cue` is what the engine wrote right before a forced answer: what completes it is tried first. Lower-case letters
    count only where they cannot be the article "a".
    """
    letters = "".join(choice_letter(index) for index in range(len(choices)))
    text = bounded(text)
    for rule, pick in _picks(text, cue, ShownChoices(letters, choices)):
        if pick == SEVERAL:
            return None
        if pick is not None:
            return Found(pick, rule)
    return None


def choice_letter(index: int) -> str:
    """The letter of the choice at `index` of those shown: 0 is A."""
    return chr(ord("A") + index)


def _picks(text: str, cue: str, shown: ShownChoices) -> Iterator[tuple[str, Pick]]:
    """(rule, what it picks) for each rule, in the order in which they are tried."""
    if cue:
        yield "cue", _completion(text, cue, shown)
    boxed = boxed_answer(text)
    if boxed is not None and not boxed.content:
        yield "box", SEVERAL  # cut
    if boxed is not None:
        yield "box", shown.content(boxed.content)
    for box in reversed(boxes_in(text)[-MOST_CUES:]):
        yield "box", shown.content(box.content)
    if (given := structured(text)) is not None:
        yield "structured", shown.content(given)
    plain = unmarked(text)
    for match in reversed(list(_CUE.finditer(plain))[-MOST_CUES:]):
        yield "answer", _said(plain[match.end() : match.end() + LONGEST_SENTENCE], shown)
    for match in reversed(list(HEADING.finditer(plain))[-MOST_CUES:]):
        yield "answer", _said(plain[match.end() : match.end() + LONGEST_SENTENCE], shown)
    yield "is correct", _last(shown.correct.findall(plain))
    lines = lines_of(plain)
    if not lines:
        return
    last_sentence = _last_sentence(lines[-1])
    alone = shown.alone.fullmatch(lines[-1].strip(" ."))
    alone = alone or shown.alone.fullmatch(last_sentence.strip(" ."))
    yield "last line", alone[1].upper() if alone is not None else None
    yield "chosen", _last(shown.chosen.findall(lines[-1]))
    if not _is_option(lines, 0, shown):
        yield "first line", _led(lines[0], shown)
    if _is_option(lines, len(lines) - 1, shown):
        return
    if not any(_is_option(lines, index, shown) for index in range(len(lines))):
        yield "last line", _led(lines[-1], shown)
    yield "choice's text", shown.text_of(lines[-1]) or shown.text_in(last_sentence)


def _completion(text: str, cue: str, shown: ShownChoices) -> Pick:
    if (completed := completed_box(cue, text)) is not None:
        return shown.content(completed)
    first_line = next(iter(lines_of(text)), "")
    boxed = boxed_answer(first_line)
    if boxed is not None:
        return shown.content(boxed.content)
    line = unmarked(first_line).strip(" :")
    return _led(line, shown) or shown.text_of(line) or _said(line, shown)


def _said(text: str, shown: ShownChoices) -> Pick:
    """What the sentence after a cue picks."""
    sentence = first_sentence(text)
    if text.lstrip(" \n:")[len(sentence) : len(sentence) + 1] == "?":
        return None
    led = shown.led.match(next(iter(lines_of(text)), ""))
    if led is not None and shown.named_in(sentence) != SEVERAL:
        return (led[1] or led[3]).upper()
    return shown.named_in(sentence) or shown.text_in(sentence)


def _led(line: str, shown: ShownChoices) -> Pick:
    """The letter that a line is, or begins with: `C`, `(C)`, `C) 15 m/s`."""
    line = line.strip(" ")
    alone = re.fullmatch(rf"[(\[]?([{shown.letters}{shown.letters.lower()}])[)\]]?[.:]?", line)
    if alone is not None:
        return alone[1].upper()
    led = shown.led.match(line)
    return (led[1] or led[3]).upper() if led is not None else None


def _is_option(lines: list[str], index: int, shown: ShownChoices) -> bool:
    """Whether a line belongs to a list of the choices: a neighbour begins with the letter before or after its own."""
    own = shown.led.match(lines[index])
    if own is None:
        return False
    for neighbour, step in ((index - 1, -1), (index + 1, 1)):
        other = shown.led.match(lines[neighbour]) if 0 <= neighbour < len(lines) else None
        if other is not None and ord((other[1] or other[3]).upper()) - ord((own[1] or own[3]).upper()) == step:
            return True
    return False


def _last(found: list[str]) -> Pick:
    return found[-1].strip("([")[-1].upper() if found else None


def _last_sentence(line: str) -> str:
    sentences = [part for part in re.split(r"(?<=[.!?]) ", line) if part.strip()]
    return sentences[-1] if sentences else line
