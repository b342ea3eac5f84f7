"""The letters of the choices shown, as texts name them: `(C)`, `option C`, "neither A nor B but C", or a choice."""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from eval.equality.notation import plain
from eval.equality.numerals import exact_or_none, is_numeral
from eval.extraction.found import LONGEST_EXPRESSION

LONGEST_NUMBER = 100
"""Characters of a choice that is compared as a number."""
SEVERAL = "several"
"""More than one letter is named, so none is picked."""

# The end of a letter: languages that are written without spaces may go on at once.
_ENDS = r"(?!(?![\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])[\w'’])"
_BEGINS = r"(?<![^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?<!['’.])"
Pick = str | Literal["several"] | None

_GROUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathit|mathsf|boldsymbol|underline|bm|fbox)\s?\{([^{}]*)\}"
)
_SWITCH = re.compile(r"\\(?:bf|rm|it|sf)(?![A-Za-z])|\\(?:left|right)(?![A-Za-z])|\\[,;:!\[\]() ]|~|\$")
_MARKUP = re.compile(r"[*`\"“”‘]|(?<!\w)_+|_+(?!\w)|(?m:^[#>]+)")
_NEGATED = (
    r"(?i:\bnot\b|\bnor\b|\bneither\b|\bexcept\b|\bthan\b|\bunlike\b|\bover\b|\binstead of\b|\brul(?:es?|ed|ing) out\b"
    r"|\beliminat\w{1,4}\b|\bexclud\w{1,4}\b|\breject\w{0,3}\b)"
)
_CUT = re.compile(r",? (?:because|since|as|which|where|so|for|while|whereas|—|–|-) |[;:(—–]")


class ShownChoices:
    """The choices as shown, and the patterns that find their letters."""

    def __init__(self, letters: str, choices: Sequence[str]) -> None:
        self.letters = letters
        self._texts = [_squeezed(choice) for choice in choices]
        self._unspaced = [_unspaced(choice) for choice in choices]
        self._numbers = [_number(choice) for choice in choices]
        upper, lower = f"[{letters}]", f"[{letters.lower()}]"
        article = r"(?! (?!is\b|was\b|because\b|since\b|as\b|and\b|or\b|but\b|nor\b|fits\b|has\b|must\b)[a-z])"
        self.token = re.compile(rf"{_BEGINS}[(\[]?({upper}){article}{_ENDS}(?!-)[)\]]?|[(\[]({lower})[)\]]")
        named = rf"[(\[]?{upper}[)\]]?(?![\w'’])"
        joined = rf"(?:(?:,? (?:and|or|nor) |, ?| ?/ ?)(?:{_NEGATED} )?(?:(?i:option|choice|answer)s? )?{named})"
        self.negated = re.compile(
            rf"{_NEGATED} (?:(?i:the|option|choice|answer|options|choices) )*{named}{joined}{{0,5}}"
        )
        opening = "so|thus|hence|therefore|it is|it's|i'd say|i think|i guess|probably|maybe|perhaps|either way"
        opening += "|my|final|the|correct|option|choice|answer|letter|is|:|,"
        self.alone = re.compile(rf"(?i:(?:(?:{opening}) ?){{0,6}})[(\[{{]?({upper}|{lower})[)\]}}]?[.:]?")
        self.led = re.compile(
            rf"[(\[]?({upper}|{lower}(?=[).]))(?:[)\].:](?: (.*))?|,? (?:because|since) .*)$"
            rf"|({upper}) ?[-–—] ?(?!{upper}\b)(\S.*)$"
        )
        praise = r"(?:the )?(?:most |only )?(?i:correct|right|best|better|true|consistent|valid|answer)\b"
        fits = rf" (?:is|must be|seems) {praise}| (?:fits|matches)(?: best)?(?=[.!]?$)| it is(?=[.!]?$)| ?是?正确"
        self.correct = re.compile(rf"{_BEGINS}[(\[]?({upper})[)\]]?(?:{fits})", re.MULTILINE)
        self.listed = re.compile(rf"(?<!\w)[(\[]?({upper})[).:\]](?!\w)")
        verb = "choose|chose|pick|select|go with|going with|leaves|leaving|favou?rs?|match(?:es)?|to|be|is"
        verb += "|hence|thus|so|therefore|option|choice"
        choosing = rf"(?i:(?<!not )(?<!cannot )(?<!never )\b(?:{verb}),? )(?:(?i:option|choice|answer) )?"
        letter = rf"[(\[]?({upper}|(?<=(?i:option) )[(\[]?{lower})[)\]]?"
        self.chosen = re.compile(rf"{choosing}{letter}(?=[.,;!]?(?:$|\s[—–-]))", re.MULTILINE)

    def named_in(self, sentence: str) -> Pick:
        """The one letter that `sentence` names and does not deny."""
        sentence = sentence.strip()
        kept = self.negated.sub(" ", sentence)
        cut = _CUT.search(kept)
        for part in ([kept[: cut.start()]] if cut is not None else []) + [kept]:
            named = {match[1] or match[2].upper() for match in self.token.finditer(part)}
            if len(named) > 1:
                return SEVERAL
            if named:
                return named.pop()
        alone = self.alone.fullmatch(sentence)
        return alone[1].upper() if alone is not None else None

    def text_in(self, sentence: str) -> Pick:
        """The letter of the only choice whose text `sentence` contains."""
        said = _squeezed(sentence[-LONGEST_EXPRESSION:])
        found = [
            (letter, squeezed)
            for letter, squeezed in zip(self.letters, self._texts, strict=True)
            if squeezed and re.search(rf"(?<![\w.]){re.escape(squeezed)}(?!\w|\.\d)", said)
        ]
        longest = [(a, one) for a, one in found if not any(one != other and one in other for _, other in found)]
        return None if not longest else longest[0][0] if len(longest) == 1 else SEVERAL

    def text_of(self, content: str) -> Pick:
        """The letter of the only choice whose text, or whose number, is `content`."""
        if len(content) > LONGEST_EXPRESSION:
            return None
        said, number = _unspaced(content), _number(content)
        same = [index for index, one in enumerate(self._unspaced) if one == said]
        same = same or [index for index, one in enumerate(self._numbers) if number is not None and one == number]
        return self.letters[same[0]] if len(same) == 1 else None

    def content(self, content: str) -> Pick:
        """What a box, a tag or a completed line picks: a letter in any markup, `C) text`, or the text of one choice."""
        line = unmarked(content).strip(" .")
        if (alone := self.alone.fullmatch(line)) is not None:
            return alone[1].upper()
        if (same := self.text_of(content)) is not None:
            return same
        if re.fullmatch(rf"[{self.letters}]{{2,}}", line):
            return SEVERAL
        led = self.led.match(line)
        if led is not None and self.named_in(line) != SEVERAL:
            return (led[1] or led[3]).upper()
        return self.named_in(line)


def unmarked(text: str) -> str:
    """`text` without markup that means nothing to a choice: fonts, emphasis, quotes, dollar signs."""
    for _ in range(4):
        text, changed = _GROUP.subn(r" \1 ", text)
        if not changed:
            break
    text = _MARKUP.sub("", _SWITCH.sub(" ", text))
    text = re.sub(r"[^\S\n]+", " ", text)
    return re.sub(r"\( ?([A-Za-z]) ?\)", r"(\1)", text)


@lru_cache(maxsize=256)  # a loop says the same sentence again and again
def _squeezed(text: str) -> str:
    """`text` as it is compared with others: one notation, lower case, no space around operators."""
    one = re.sub(r"\^\s?\{([^{}]*)\}", r"^\1", unmarked(plain(unmarked(text))))
    return re.sub(r" ?([=+*/^]) ?", r"\1", re.sub(r"\s+", " ", one)).strip(" .").lower()


def _unspaced(text: str) -> str:
    return _squeezed(text).replace(" ", "")


def _number(text: str) -> Fraction | None:
    """The number that `text` is, with no unit."""
    if len(text) > LONGEST_NUMBER:
        return None
    one = plain(unmarked(text))
    return exact_or_none(one) if is_numeral(one) else None
