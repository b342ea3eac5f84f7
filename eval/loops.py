"""Repetition loops: from some token on a trace only repeats itself, a known failure of pruned models.

Two kinds count, whatever the budget mode and however the trace ended:

- *exact*: the last tokens have a period of p tokens, over at least `REPEATS` p + `MARGIN` tokens; over twice as many if
  no token of the period has a letter, because rules, zeros and decimals are written in good health, too;
- *numbered* ("8. So it is. 9. So it is."): the same over twice as many tokens, where a numeral may also be greater by
  one than the numeral a period before. People count, so a period holds a numeral and `FEWEST_WORDS` tokens with
  letters. A numeral is one token here, however many it is spelled in, and counts once the token after it is there.

p is at most `LONGEST_PERIOD`. `LoopFinder.find` gives the position at which a trace's first loop is *established*: the
length of the shortest beginning that ends in a loop. It does not depend on what follows, so one number serves every
limit: at a cut the trace has looped if the position is not beyond the cut. A trace that leaves its loop has looped.

The time is linear in the trace. Where a loop of period p is established, a run of tokens equals the tokens p before
them. Lay windows of half that run's length side by side: one of them lies in the run, and its hash equals that of the
window p before it. These are about n / p hashes for each p; only where they agree, tokens are compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

LONGEST_PERIOD = 1024
"""Tokens."""
REPEATS = 3
MARGIN = 32
"""Tokens."""
FEWEST_WORDS = 2

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
_NUMERAL = -1
"""The code of every numeral where numerals are compared by value."""
_DIGITS = 18
"""Of longer numerals only the last digits are compared: 64 bits hold no more."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_KNOWN, _IS_NUMERAL, _BEGINS_WITH_DIGIT, _HAS_LETTERS = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)


class LoopFinder:
    """Finds loops in the traces of one tokenizer. `text_of` gives the text of a token id."""

    def __init__(self, text_of: Callable[[int], str]) -> None:
        self._text_of = text_of
        self._kinds = np.zeros(0, dtype=np.uint8)
        """What is known of each token id."""

    def find(self, token_ids: Sequence[int]) -> int:
        """How many of `token_ids` it takes until a loop is established; 0 if none ever is."""
        ids = np.asarray(token_ids, dtype=np.int64)
        kinds = self._kinds_of(ids)
        exact = _established(_Exact(ids, kinds & _HAS_LETTERS > 0))
        numbered = _established(self._with_numerals(ids, kinds)) if (kinds & _IS_NUMERAL).any() else 0
        return min(exact, numbered) or max(exact, numbered)

    def _kinds_of(self, ids: Numbers) -> NDArray[np.uint8]:
        if len(ids) and int(ids.max()) >= len(self._kinds):
            self._kinds = np.append(self._kinds, np.zeros(int(ids.max()) + 1 - len(self._kinds), dtype=np.uint8))
        for one in np.unique(ids[self._kinds[ids] == 0]).tolist():
            text = self._text_of(one)
            kind = _KNOWN
            kind |= _IS_NUMERAL if text.strip().isdecimal() else np.uint8(0)
            kind |= _BEGINS_WITH_DIGIT if text[:1].isdecimal() else np.uint8(0)
            kind |= _HAS_LETTERS if any(map(str.isalpha, text)) else np.uint8(0)
            self._kinds[one] = kind
        return self._kinds[ids]

    def _with_numerals(self, ids: Numbers, kinds: NDArray[np.uint8]) -> "_Numbered":
        numeral = kinds & _IS_NUMERAL > 0
        goes_on = numeral & (kinds & _BEGINS_WITH_DIGIT > 0) & np.append(False, numeral[:-1])
        starts = np.flatnonzero(~goes_on)
        if numeral[-1]:  # more digits may follow
            starts, last = starts[:-1], int(starts[-1])
        else:
            last = len(ids)
        codes = np.where(numeral, _NUMERAL, ids)[starts]
        ends = np.append(starts[1:], last)[: len(starts)]
        return _Numbered(codes, (kinds & _HAS_LETTERS > 0)[starts], ids, starts, ends, self._text_of)


@dataclass(frozen=True)
class _Exact:
    """A trace as `_established` sees it: codes, and what it takes for some of them to be a loop."""

    codes: Numbers
    words: Flags
    """Which codes have letters."""
    factor = 1
    """How many times the shortest span of an exact loop it takes."""

    def same(self, low: int, high: int, period: int) -> Flags:
        """Which of the codes in `low`..`high` repeat the one a period before."""
        return self.codes[low:high] == self.codes[low - period : high - period]

    def needed(self, begin: int, period: int) -> int:
        """How many codes from `begin` on must repeat the one a period before."""
        doubled = self.factor == 1 and not self.words[begin - period : begin].any()
        return (2 if doubled else self.factor) * (REPEATS * period + MARGIN) - period

    def counts(self, begin: int, period: int) -> bool:
        """Whether what is repeated from `begin` on may be a loop at all."""
        return True

    def tokens(self, count: int) -> int:
        """How many tokens it takes to know the first `count` codes."""
        return count


@dataclass(frozen=True)
class _Numbered(_Exact):
    """A trace in which each numeral is one code, `_NUMERAL`, and has a value."""

    ids: Numbers
    starts: Numbers
    ends: Numbers
    """The tokens of code i are `ids[starts[i]:ends[i]]`."""
    text_of: Callable[[int], str]
    factor = 2

    @cached_property
    def values(self) -> Numbers:
        values = np.zeros(len(self.codes), dtype=np.int64)
        for code in np.flatnonzero(self.codes == _NUMERAL).tolist():
            spelled = self.ids[self.starts[code] : self.ends[code]].tolist()
            values[code] = int("".join(self.text_of(one).strip() for one in spelled[-_DIGITS:])[-_DIGITS:])
        return values

    def same(self, low: int, high: int, period: int) -> Flags:
        growth = self.values[low:high] - self.values[low - period : high - period]
        return super().same(low, high, period) & ((growth == 0) | (growth == 1))

    def counts(self, begin: int, period: int) -> bool:
        block = slice(begin - period, begin)
        return int(self.words[block].sum()) >= FEWEST_WORDS and _NUMERAL in self.codes[block]

    def tokens(self, count: int) -> int:
        return int(self.ends[count - 1]) + (self.codes[count - 1] == _NUMERAL)


def _established(trace: _Exact) -> int:
    """How many tokens it takes until a loop is established; 0 if none is."""
    best = 0
    for period, low, high in _candidates(trace.codes, trace.factor):
        high = min(high, best) if best else high
        if high <= low:
            continue
        for begin, end in _runs(trace.same(low, high, period), trace.factor * (REPEATS * period + MARGIN) - period):
            needed = trace.needed(low + begin, period)
            if end - begin >= needed and trace.counts(low + begin, period):
                best = low + begin + needed
                break
    return trace.tokens(best) if best else 0


def _runs(flags: Flags, shortest: int) -> list[tuple[int, int]]:
    """(from, to) of every run of at least `shortest` true flags."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    long = ends - begins >= shortest
    return list(zip(begins[long].tolist(), ends[long].tolist(), strict=True))


def _candidates(codes: Numbers, factor: int) -> Iterator[tuple[int, int, int]]:
    """(period, from, to): stretches in which codes may equal those a period before them for long enough.

    In order of periods. Every run that establishes a loop lies in one of them.
    """
    total = len(codes)
    longest = min(LONGEST_PERIOD, (total // factor - MARGIN) // REPEATS)
    if longest < 1:
        return
    periods = np.arange(1, longest + 1)
    widths = (factor * (REPEATS * periods + MARGIN) - periods + 1) // 2
    counts = (total - periods) // widths
    period, width = np.repeat(periods, counts), np.repeat(widths, counts)
    window = np.arange(len(period)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = period + window * width
    powers = np.cumprod(np.full(total, _BASE))
    mixed = (codes.astype(np.uint64) + np.uint64(2)) * _BASE
    sums = np.append(np.uint64(0), np.cumsum((mixed ^ mixed >> np.uint64(29)) * powers))
    later = sums[begin + width] - sums[begin]
    earlier = sums[begin + width - period] - sums[begin - period]
    agree = np.flatnonzero(later == earlier * powers[period - 1])
    # Windows that agree side by side are one stretch, which may begin and end up to a window beyond them.
    joined = (np.diff(agree) == 1) & (window[agree[1:]] > 0)
    heads, tails = agree[np.append(True, ~joined)[: len(agree)]], agree[np.append(~joined, True)[: len(agree)]]
    lows = np.maximum(begin[heads] - width[heads], period[heads])
    highs = np.minimum(begin[tails] + 2 * width[tails], total)
    yield from zip(period[heads].tolist(), lows.tolist(), highs.tolist(), strict=True)
