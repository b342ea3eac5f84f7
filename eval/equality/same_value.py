r"""Whether two answers are the same: the gold, and what a model wrote.

Both are brought into one notation and read as shapes; shapes are compared element by element, numbers exactly, words as
words, and what remains by algebra. `docs/evaluation.md` states the rules and the leniencies.
"""

from collections.abc import Sequence
from functools import lru_cache

from eval.equality.arithmetic import EnormousError
from eval.equality.notation import plain, trimmed
from eval.equality.numerals import exact, integer_digits
from eval.equality.relations import assigned_values, both_bounds, stated_value
from eval.equality.shapes import (
    Matrix,
    Ordered,
    Ratio,
    Relation,
    Several,
    Shape,
    Union,
    Value,
    mirrored,
    shape_of,
)
from eval.equality.symbolic import same_function
from eval.equality.units import quantity
from eval.equality.values import based, is_algebra, is_wordy, same_values, same_words, spelled, units_agree

DEEPEST = 8
"""Levels of nesting that are compared."""


def same_value(gold: str, answer: str) -> bool:
    """Whether two LaTeX (or plain) expressions denote the same value.

    It may take for ever on hostile text, where algebra is needed: see `eval.grader_pool`.
    """
    left, right = _plain(gold), _plain(answer)
    try:
        return _same(left, right, 0)
    except EnormousError:
        return False  # written in a few characters, but no gold is of that size


def value_key(expression: str) -> str:
    """A text that is equal for two answers if they are the same number or are spelled alike; for grouping answers."""
    text = _plain(expression)
    try:
        number = exact(quantity(text).value)
    except EnormousError:
        number = None
    return spelled(text) if number is None else str(number)


_plain = lru_cache(maxsize=1024)(plain)


def _same(gold: str, answer: str, depth: int) -> bool:
    gold, answer = trimmed(gold), trimmed(answer)
    if not gold or not answer or depth > DEEPEST:
        return gold == answer
    if spelled(gold) == spelled(answer):
        return True
    if (is_wordy(gold) or is_wordy(answer)) and same_words(gold, answer):
        return True
    whole = integer_digits(gold), integer_digits(answer)
    if whole[0] is not None and whole[1] is not None:
        return whole[0] == whole[1]
    if (base := based(gold)) is not None or based(answer) is not None:
        return base == based(answer)
    left, right = _shape(gold), _shape(answer)
    if isinstance(left, Relation) or isinstance(right, Relation):
        return _same_relations(left, right, gold, answer, depth)
    return _same_shapes(left, right, gold, answer, depth)


def _shape(text: str) -> Shape:
    """The shape of `text`; a number with thousands separators is one value."""
    if not text.startswith(("(", "[", r"\{")) and exact(quantity(text).value) is not None:
        return Value(text)
    return shape_of(text)


def _same_shapes(left: Shape, right: Shape, gold: str, answer: str, depth: int) -> bool:
    match left, right:
        case Several(items=ones), Several(items=others):
            return _same_sets(ones, others, depth)
        case Ordered(items=ones, brackets=one), Ordered(items=others, brackets=other):
            return one == other and _all_same(ones, others, depth)
        case (Several(items=assigned), Ordered(items=others)) | (Ordered(items=others), Several(items=assigned)):
            values = assigned_values(assigned)
            if values is None:
                interval = left if isinstance(left, Ordered) else right
                return both_bounds(assigned) == interval
            return _all_same(others, values, depth) if isinstance(left, Ordered) else _all_same(values, others, depth)
        case Union(parts=ones), Union(parts=others):
            return _same_sets(ones, others, depth)
        case (Union(parts=ones), Several(items=others)) | (Several(items=others), Union(parts=ones)):
            return _same_sets(ones, others, depth)
        case Matrix(rows=ones), Matrix(rows=others):
            return [len(row) for row in ones] == [len(row) for row in others] and _all_same(
                [entry for row in ones for entry in row], [entry for row in others for entry in row], depth
            )
        case Ratio(terms=ones), Ratio(terms=others):
            return _all_same(ones, others, depth)
        case Value(text=one), Value(text=other):
            return same_values(one, other)
        case (Several(items=items), _) if items:  # the same value, given in several forms
            return all(_same(item, answer, depth + 1) for item in items)
        case (_, Several(items=items)) if items:
            return all(_same(gold, item, depth + 1) for item in items)
        case (Ratio(), Value()) | (Value(), Ratio()):
            with_unit, bare = quantity(gold), quantity(answer)  # a time of day with a.m., say
            changed = with_unit.value != gold or bare.value != answer
            return changed and units_agree(with_unit.unit, bare.unit) and _same(with_unit.value, bare.value, depth + 1)
        case (Union() | Value(), Union() | Value() | Ordered()) | (Ordered(), Union() | Value()):
            # A set written with \setminus, say: algebra knows more sets than these shapes do.
            return is_algebra(gold) and is_algebra(answer) and same_function(gold, answer)
    return False


def _all_same(ones: Sequence[str], others: Sequence[str], depth: int) -> bool:
    return len(ones) == len(others) and all(
        _same(one, other, depth + 1) for one, other in zip(ones, others, strict=True)
    )


def _same_sets(ones: Sequence[str], others: Sequence[str], depth: int) -> bool:
    """Whether each element of either has an equal one in the other: order and repetition do not count."""
    if len(ones) * len(others) > 2_500:
        return list(ones) == list(others)
    ones, others = _expanded(ones), _expanded(others)
    return all(any(_same(one, other, depth + 1) for other in others) for one in ones) and all(
        any(_same(one, other, depth + 1) for one in ones) for other in others
    )


def _expanded(items: Sequence[str]) -> list[str]:
    r"""`1 \pm \sqrt 5, -2` has three elements."""
    expanded: list[str] = []
    for item in items:
        shape = shape_of(item) if r"\pm" in item else None
        value = stated_value(shape) if isinstance(shape, Relation) else None
        shape = shape_of(value) if value is not None else shape
        expanded += shape.items if isinstance(shape, Several) else [item]
    return expanded


# --- relations ----------------------------------------------------------------------------------------------


def _same_relations(left: Shape, right: Shape, gold: str, answer: str, depth: int) -> bool:
    """Compare where at least one side is an equation or a chain of inequalities.

    An equation that gives a name to a value, or ends a calculation, is that value. Any other, such as `x + y = 5`,
    equals only an equation with the same solutions.
    """
    one = stated_value(left) if isinstance(left, Relation) else gold
    other = stated_value(right) if isinstance(right, Relation) else answer
    if one is not None and other is not None:
        return _same(one, other, depth + 1)
    if not isinstance(left, Relation) or not isinstance(right, Relation):
        return False
    if left.equation and right.equation:
        return len(left.sides) == len(right.sides) == 2 and same_function(gold, answer)
    return any(
        relation.operators == left.operators and _all_same(left.sides, relation.sides, depth)
        for relation in (right, mirrored(right))
    )
