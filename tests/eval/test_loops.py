"""Repetition loops: exactly those of the definition, in linear time, and none in what healthy models write."""

import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eval.loops import FEWEST_WORDS, LONGEST_PERIOD, MARGIN, REPEATS, LoopFinder

TEXTS = (" so", " it", " is", ".", "\n", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", " 8")
SO, IT, IS, DOT, NEWLINE, ZERO = range(6)


def find(ids: Sequence[int]) -> int:
    return LoopFinder(lambda token: TEXTS[token]).find(ids)


def characters(text: str) -> int:
    """Of a text, a token per character."""
    return LoopFinder(chr).find([ord(one) for one in text])


# --- the definition, word by word ----------------------------------------------------------------------------


def literal(ids: Sequence[int]) -> int:
    """The first position at which a loop is established, by trying every beginning and every period."""
    return next((n for n in range(1, len(ids) + 1) if ends_exactly(ids[:n]) or ends_numbered(ids[:n])), 0)


def ends_exactly(ids: Sequence[int]) -> bool:
    for period in range(1, min(LONGEST_PERIOD, len(ids)) + 1):
        worded = any(one.isalpha() for token in ids[-period:] for one in TEXTS[token])
        span = (REPEATS * period + MARGIN) * (1 if worded else 2)
        if repeats(ids, span, period, lambda one, other: one == other):
            return True
    return False


def ends_numbered(ids: Sequence[int]) -> bool:
    units: list[int | str] = []
    for token in ids:
        text = TEXTS[token]
        if not text.strip().isdecimal():
            units.append(token)
        elif units and isinstance(units[-1], str) and not text.startswith(" "):
            units[-1] += text
        else:
            units.append(text.strip())
    if units and isinstance(units[-1], str):
        units.pop()  # it may go on

    def same(one: int | str, other: int | str) -> bool:
        if isinstance(one, str) and isinstance(other, str):
            return int(other) - int(one) in (0, 1)
        return one == other

    for period in range(1, min(LONGEST_PERIOD, len(units)) + 1):
        block = units[-period:]
        words = sum(isinstance(unit, int) and TEXTS[unit].strip().isalpha() for unit in block)
        numerals = sum(isinstance(unit, str) for unit in block)
        if words >= FEWEST_WORDS and numerals and repeats(units, 2 * (REPEATS * period + MARGIN), period, same):
            return True
    return False


def repeats(units: Sequence, span: int, period: int, same: Callable[..., bool]) -> bool:
    """Whether each of the last `span` units is the same as the one a period before, if that is among them."""
    if span > len(units):
        return False
    last = units[-span:]
    return all(same(one, other) for one, other in zip(last, last[period:], strict=False))


@st.composite
def traces(draw: st.DrawFn) -> list[int]:
    """Any beginning, then a block that is repeated, sometimes with a counter or a slip, then any end."""
    alphabet = draw(st.sampled_from([(SO,), (SO, ZERO), (SO, IT, DOT), tuple(range(len(TEXTS)))]))
    some = st.lists(st.sampled_from(alphabet), max_size=25)
    block, counter = draw(some), draw(st.integers(0, 120))
    step = draw(st.sampled_from([None, 0, 1, 1, 1, 2]))
    ids = draw(some)
    for number in range(draw(st.integers(0, 40))):
        ids += [] if step is None else [ZERO + int(digit) for digit in str(counter + number * step)]
        ids += block
    if ids and draw(st.booleans()):
        ids[draw(st.integers(0, len(ids) - 1))] = draw(st.sampled_from(range(len(TEXTS))))
    return (ids + draw(some))[:260]


@settings(max_examples=150)
@given(traces())
@example([SO] * 35)
@example([ZERO] * 69)
@example([ZERO] * 70)
@example([token for n in range(8, 40) for token in (*(ZERO + int(c) for c in str(n)), DOT, SO, IT, IS, NEWLINE)])
def test_loop_is_established_where_the_definition_says(ids: list[int]) -> None:
    assert find(ids) == literal(ids)


@given(traces(), st.data())
def test_beginning_of_a_trace_has_the_loop_of_the_whole_or_none_yet(ids: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(ids)))
    whole = find(ids)
    assert find(ids[:cut]) == (whole if whole <= cut else 0)


@given(st.text(max_size=300), st.text(min_size=1, max_size=60), st.integers(0, 40))
def test_any_block_that_is_repeated_often_enough_is_found(before: str, block: str, more: int) -> None:
    often = -(-2 * (REPEATS * len(block) + MARGIN) // len(block)) + more
    assert 0 < characters(before + block * often) <= len(before) + 2 * (REPEATS * len(block) + MARGIN)


@given(st.integers(1, LONGEST_PERIOD), st.integers(0, 500))
def test_block_of_any_length_is_found_after_three_periods_and_a_margin(period: int, before: int) -> None:
    block = [ord("a") + number for number in range(period)]
    ids = [10**6 + number for number in range(before)] + block * (REPEATS + 1 + MARGIN // period)
    finder = LoopFinder(lambda token: "word")
    assert finder.find(ids[: before + REPEATS * period + MARGIN - 1]) == 0
    assert finder.find(ids) == before + REPEATS * period + MARGIN


# --- what it is for ------------------------------------------------------------------------------------------


def test_loop_that_begins_late_is_seen_at_a_small_limit() -> None:
    assert 0 < find([*range(15), *([SO, IT] * 25)]) <= 64


@pytest.mark.parametrize("first", [1, 8, 95, 996])
def test_numbered_loop_is_found_across_a_new_digit(first: int) -> None:
    assert characters("".join(f"{first + n}. Wait, so it is 4.\n" for n in range(12)))


def test_counter_that_leaps_or_a_sentence_that_changes_is_no_loop() -> None:
    assert not characters("".join(f"{2 * n}. Wait, so it is 4.\n" for n in range(30)))
    assert not characters("".join(f"{n}. Wait, it is {n * n}.\n" for n in range(30)))


def test_loop_that_is_left_again_stays_found() -> None:
    assert find([SO] * 40 + list(range(15))) == 35


HEALTHY = {
    "counting": ", ".join(map(str, range(400))),
    "squares": "\n".join(f"f({n}) = {n}^2 = {n * n}" for n in range(60)),
    "cases": "\n".join(f"Case {n}: if x = {n}, then f(x) = {n * n + 1}, which is not prime." for n in range(30)),
    "seven cases alike": "".join(f"If n = {n}, then there is no solution. " for n in range(2, 8)),
    "identity": r" \\ ".join(" & ".join("1" if i == j else "0" for j in range(8)) for i in range(8)),
    "zeros": r" \\ ".join([" & ".join("0" * 4)] * 4),
    "binary": " ".join(f"{n:b}" for n in range(128)),
    "decimals": "1/7 = 0." + "142857" * 8,
    "rule": "-" * 60 + "\n",
    "multiplication": "\n".join(" | ".join(str(a * b) for b in range(1, 13)) for a in range(1, 13)),
    "code": "\n".join(f"    if x == {n}:\n        return table[{(7 * n) % 13}]" for n in range(30)),
    "refrain": "\n".join(f"{n} green bottles hanging on the wall,\nand if 1 should fall:" for n in range(10, 0, -1)),
}


@pytest.mark.parametrize("text", HEALTHY.values(), ids=HEALTHY)
def test_what_a_healthy_model_writes_is_no_loop(text: str) -> None:
    assert characters("Let me see. " + text + " So the answer is 7.") == 0


# --- time ----------------------------------------------------------------------------------------------------


def fibonacci(length: int) -> list[int]:
    one, other = [SO], [SO, IT]
    while len(other) < length:
        one, other = other, other + one
    return other[:length]


PATTERNS: dict[str, Callable[[int], list[int]]] = {
    "one token": lambda n: [SO] * n,
    "one numeral": lambda n: [ZERO] * n,
    "almost loops": lambda n: ([SO] * 34 + [IT]) * (n // 35),
    "fibonacci": fibonacci,
    "thue-morse": lambda n: [index.bit_count() % 2 for index in range(n)],
    "long period": lambda n: [index % 1000 % 16 for index in range(n)],
    "counting": lambda n: [ZERO + int(c) if c.isdigit() else DOT for k in range(n) for c in f"{k}."][:n],
    "numerals": lambda n: [DOT if index % 2 else ZERO + index % 7 for index in range(n)],
}


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_ten_times_the_trace_does_not_take_a_hundred_times_as_long(pattern: Callable[[int], list[int]]) -> None:
    """In processor time, which a busy machine stretches little; the larger traces have 100,000 tokens."""

    def seconds(ids: list[int]) -> float:
        taken = []
        for _ in range(3):
            began = time.process_time()
            find(ids)
            taken.append(time.process_time() - began)
        return min(taken)

    assert seconds(pattern(100_000)) < 40 * max(seconds(pattern(10_000)), 0.001)
