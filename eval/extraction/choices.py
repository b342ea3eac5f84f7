"""The letter that a text picks among the choices shown, and the rule that found it."""

import re
from collections.abc import Iterator, Sequence

from eval.extraction.boxes import boxed_answer, boxes_in, completed_box
from eval.extraction.choice_letters import SEVERAL, Pick, ShownChoices, unmarked
from eval.extraction.found import Found
from eval.extraction.phrases import (
    HEADING,
    LONGEST_SENTENCE,
    MOST_CUES,
    NOUN,
    OTHER_SCRIPTS,
    first_sentence,
    is_question,
    structured,
)
from eval.extraction.text import after_thinking, bounded, completing_line, lines_of

_LINK = r"(?:is|was|be|are|ist|lautet|es|est|è|é)\b"
_CUE = re.compile(
    rf"(?i)(?<![a-z])(?<!if the )(?<!whether the )(?:{NOUN}|option|choice|response)\b"
    rf"(?! ?[(\[]?[a-j][)\]]?(?![a-z]))(?:[^.\n:]{{0,60}}?(?<![a-z]){_LINK}[: ]*| ?[:=→-] ?)"
    rf"|{OTHER_SCRIPTS}|(?<![a-z])ans[.:=] ?|(?:故选|应选|应该选|选择?|正确选项)(?:是|为|:)?[: ]*"
)
_NUMBERED = re.compile(r"^\d{1,2}[.)] ")
_DENIED = re.compile(r"(?i)\b(?:not|cannot|never)\b|n[’']t\b")


def find_choice(text: str, choices: Sequence[str], cue: str = "") -> Found | None:
    """The letter (A, B, ...) that `text` picks among `choices`, or None if it picks none or several.

    `cue` is what the engine wrote right before a forced answer: what completes it is tried first. Lower-case letters
    count only where they cannot be the article "a".
    """
    letters = "".join(choice_letter(index) for index in range(len(choices)))
    text, shown = bounded(text), ShownChoices(letters, choices)
    for part in (text,) if cue else (after_thinking(text), text):
        for rule, pick in _picks(part, cue, shown):
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
        if _DENIED.search(match[0]) is None:
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
    if alone is not None and not _is_option(lines, len(lines) - 1, shown):
        yield "last line", alone[1].upper()
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
    first_line = completing_line(text)
    boxed = boxed_answer(first_line)
    if boxed is not None:
        return shown.content(boxed.content)
    line = unmarked(first_line).strip(" :")
    return _led(line, shown) or shown.text_of(line) or _said(line, shown)


def _said(text: str, shown: ShownChoices) -> Pick:
    """What the sentence after a cue picks."""
    sentence = first_sentence(text)
    if is_question(text):
        return None
    led = shown.led.match(next(iter(lines_of(text)), ""))
    if led is not None and shown.named_in(sentence) != SEVERAL:
        return (led[1] or led[3]).upper()
    return shown.named_in(sentence) or shown.text_of(sentence) or shown.text_in(sentence)


def _led(line: str, shown: ShownChoices) -> Pick:
    """The letter that a line is, or begins with: `C`, `(C)`, `C) 15 m/s`."""
    line = line.strip(" ")
    alone = re.fullmatch(rf"[(\[]?([{shown.letters}{shown.letters.lower()}])[)\]]?[.:]?", line)
    if alone is not None:
        return alone[1].upper()
    led = shown.led.match(line)
    if led is None:
        return None
    letter, rest = (led[1] or led[3]).upper(), led[2] or ""
    if line.startswith("A: ") and (said := shown.alone.fullmatch(rest.strip(" ."))) is not None:
        return said[1].upper()  # "Q: ... A: C"
    following = chr(ord(letter) + 1)
    return SEVERAL if following in shown.listed.findall(rest) else letter


def _is_option(lines: list[str], index: int, shown: ShownChoices) -> bool:
    """Whether a line belongs to a list of the choices: a neighbour begins with the letter before or after its own."""
    own = _marker(lines[index], shown)
    if own is None:
        return False
    for neighbour, step in ((index - 1, -1), (index + 1, 1)):
        other = _marker(lines[neighbour], shown) if 0 <= neighbour < len(lines) else None
        if other is not None and ord(other) - ord(own) == step:
            return True
    return False


def _marker(line: str, shown: ShownChoices) -> str | None:
    """The letter that a line is or begins with, after the number of a list."""
    line = _NUMBERED.sub("", line, count=1)
    if len(line) <= 3 and (alone := shown.alone.fullmatch(line)) is not None:
        return alone[1].upper()
    led = shown.led.match(line)
    return (led[1] or led[3]).upper() if led is not None else None


def _last(found: list[str]) -> Pick:
    return found[-1].strip("([")[-1].upper() if found else None


def _last_sentence(line: str) -> str:
    sentences = [part for part in re.split(r"(?<=[.!?]) ", line) if part.strip()]
    return sentences[-1] if sentences else line
