r"""How texts say their answer: after a cue such as "The answer is", as a bare line, or as a sentence's formula."""

import re
from collections.abc import Iterator

from eval.extraction.formulas import first_formulas, formulas_in, last_formulas

LONGEST_SENTENCE = 400
_BEFORE = " \n*_:\"'"
"""What may stand between a cue and its sentence."""
LONGEST_BARE = 200
"""Characters of a line that can be an expression by itself."""
MOST_CUES = 50
"""How many cues are tried, from the end: a loop has thousands."""

NOUN = r"(?:answer|antwort|respuesta|réponse|risposta|resposta)s?"
OTHER_SCRIPTS = (
    r"(?:答案|答え|正解|回答|答|정답|답|ответ|उत्तर|উত্তর|الإجابة)[ *_]{0,3}(?:是|为:?|は|은|는|选|:)[: *_]{0,4}"
)
"""The answer phrases of languages without Latin letters."""
_LINK = (
    r"(?:(?:is|are|was|ist|lautet|es|est|è|é|seems to be|appears to be|would be|must be|should be|will be|has to be"
    r"|to be)\b[ :*_\"'\n]{0,6}|[:=][ *_\"'\n]{0,6}|(?=\$|\\\(|\\\[))"
)
_OF = r"(?: (?:to|of|for) [^.:=?!\n]{1,60}?(?<= )(?=is\b|are\b)|, [a-z]{2,12}, )?"
FINAL_CUE = re.compile(rf"(?i)(?<![A-Za-z])final {NOUN}\b{_OF}[ *_\"')]{{0,5}}{_LINK}")
CUE = re.compile(rf"(?i)(?<![A-Za-z]){NOUN}\b{_OF}[ *_\"')]{{0,5}}{_LINK}|{OTHER_SCRIPTS}")
LABEL = re.compile(r"(?im)^[*_ ]{0,4}(?:A|ans|result|solution|output)[*_ ]{0,4}[:=][ *_]{0,4}")
INVERTED = re.compile(
    r"(?im)^(?:so|thus|hence|therefore)?,? ?([^\n]{1,80}?) is (?:the|my|our) (?:final |correct |right )?answer\b"
)
HEADING = re.compile(rf"(?im)^[#*_ ]{{0,6}}(?:the )?(?:final )?{NOUN}[ :*_]{{0,6}}$\n?")
_STRUCTURED = re.compile(
    r"(?i)[\"'](?:final_)?answer[\"'] ?: ?(?:\"(?P<quoted>[^\"\n]{1,200})\"|'(?P<single>[^'\n]{1,200})'"
    r"|(?P<number>-?[0-9][0-9.eE+-]{0,40}))"
    r"|<answer>(?P<tagged>[^<]{1,300})</answer>"
)
_SENTENCE_END = re.compile(r"(?<!\\)[.!?](?=[\s*_\"')]|$)|\n|;(?= [A-Za-z]{2})|<\|")
_EXPLAINS = re.compile(r",? (?:because|since|which|where|as|so that|i\.e\.|by)\b|,? \(?(?:because|since)\b")
_COMES_TO = re.compile(
    r"^[-+*/·×÷().\d\s]*\d[-+*/·×÷().\d\s]*,? which (?:is|equals|gives(?: us)?|makes) (-?\d[\d,]*(?:\.\d+)?)"
)
_COPULA = re.compile(r"^.*(?<![A-Za-z])(?:is|are|be|equals|becomes|gives)\b[ :*_]*")
_CLOSING_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*\.?$")
_NOT = re.compile(r"(?i)(?:not|unknown|never|no)\b")
_HEDGES = re.compile(
    r"(?i)(?:(?:approximately|about|roughly|exactly|therefore|then|thus|hence|clearly|simply|just|indeed"
    r"|equal to|given by|the (?:number|integer|value|fraction)(?= [-\d$\\])),? )+(?=\S)"
)
_CONCLUDES = re.compile(r".*,? (?:so|thus|hence|therefore),? (?=[^=]*=)")
_LIST_MARKER = re.compile(r"(?:\d{1,3}[.)]|[-+*•]) (?=\D)")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}")
_TEXT_GROUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|boldsymbol|operatorname)\{[^{}]*\}"
)
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_FUNCTIONS = frozenset({"sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "infty", "infinity", "and"})
_LEADING_NUMBER = re.compile(r"[-+]?(?:\\?\$)?[0-9][0-9,./]*(?P<rest>(?: \(?[A-Za-z]|,? (?:because|since)\b).*)$")
_PREDICATE = re.compile(r"(?<![A-Za-z])(?:is|are|was|were|equals?|has|have|and|or|not|plus|minus|times)(?![A-Za-z])")


def structured(text: str) -> str | None:
    """The last answer given as JSON (`"answer": "C"`) or in `<answer>` tags."""
    found = list(_STRUCTURED.finditer(text))
    return next((group.strip() for group in found[-1].groups() if group), None) if found else None


def said_sentences(text: str, cue: re.Pattern[str]) -> Iterator[str]:
    """What follows each cue, up to the end of its sentence; the last cue first. Questions are left out."""
    for match in reversed(list(cue.finditer(text))[-MOST_CUES:]):
        said = text[match.end() : match.end() + LONGEST_SENTENCE]
        if not is_question(said):
            yield first_sentence(said)


def is_question(text: str) -> bool:
    """Whether the first sentence of `text` ends in a question mark."""
    end = _SENTENCE_END.search(text.lstrip(_BEFORE))
    return end is not None and end[0] == "?"


def first_sentence(text: str) -> str:
    """The first sentence of `text`, without markup before it."""
    text = text.lstrip(_BEFORE)
    end = _SENTENCE_END.search(text)
    return text[: end.start()].strip() if end is not None else text.strip()


def stated(sentence: str) -> str | None:
    r"""The expression that a sentence amounts to: `$5$ since ...`, `5`, `5 apples`, `the value of $x$ is 5`."""
    sentence = sentence.strip(" *_`\"'")
    if _NOT.match(sentence):
        return None
    sentence = _HEDGES.sub("", sentence, count=1) if _HEDGES.match(sentence) else sentence
    if (comes_to := _COMES_TO.search(sentence)) is not None:
        return comes_to[1]
    explained = _EXPLAINS.search(sentence)
    if explained is not None and explained.start() > 0:
        sentence = sentence[: explained.start()]
    formulas = first_formulas(sentence)
    copula = _COPULA.match(sentence)
    if copula is not None and copula.end() < len(sentence):
        rest = sentence[copula.end() :].strip(" *_`\"'")
        rest = rest[hedged.end() :] if (hedged := _HEDGES.match(rest)) is not None else rest
        if _NOT.match(rest):
            return None
        after = first_formulas(rest) or bare(rest)
        if after is not None:
            return after
    return formulas or bare(sentence)


def mentioned(sentence: str) -> str | None:
    """The last formula of a sentence that does not deny it."""
    return None if _NOT.match(sentence) else last_formulas(sentence)


def closing_formula(line: str) -> str | None:
    """The formula or the bold expression that `line` ends in, but for a unit."""
    if (bold := _CLOSING_BOLD.search(line)) is not None:
        return stated(bold[1])
    found = formulas_in(line)
    after = line[found[-1].end :].strip("*_ .,;:!)") if found else ""
    return last_formulas(line) if len(after.split()) <= 3 and not any(map(str.isdigit, after)) else None


def bare(line: str) -> str | None:
    """`line` if it is an expression and no prose, or the number that it begins with, as in `42 apples`."""
    if formulas_in(line):
        return None
    line = line.strip().strip("*_`# ").strip().rstrip(".;,").strip("*_`$ ").strip()
    if not line or len(line) > LONGEST_BARE or r"\boxed" in line or "<|" in line or line.endswith((":", "?", "=")):
        return None
    if _LIST_MARKER.match(line):
        return None
    if (concluded := _CONCLUDES.match(line)) is not None:
        return bare(line[concluded.end() :])
    unwrapped = _ENVIRONMENT.sub(" ", _TEXT_GROUP.sub("", line))
    prose = [word for word in _PROSE.findall(unwrapped) if word.lower() not in _FUNCTIONS]
    number = _LEADING_NUMBER.match(line)
    if prose and number is not None:
        if re.match(r",? (?:because|since)\b", number["rest"]):
            return line[: number.start("rest")].rstrip(".,/")
        if len(prose) <= 4 and "=" not in line and not _PREDICATE.search(number["rest"]):
            return line
    if len(prose) > 1 and "=" in line:
        last = line.rpartition("=")[2].strip()
        return bare(last) if last and "=" not in last else None
    if len(prose) > 1 or (prose and _PREDICATE.search(unwrapped)):
        return None
    return line
