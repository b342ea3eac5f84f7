"""Equations as answers: which of them state a value, and which."""

import re
from collections.abc import Sequence

from eval.equality.numerals import exact_or_none
from eval.equality.shapes import Ordered, Ratio, Relation, shape_of
from eval.equality.units import quantity

_CALL = re.compile(r"[A-Za-z]+'*\s*\([^()]*\)")
_NAME = re.compile(r"[^\d+\-*/^:]*")
_SUBSCRIPT = re.compile(r"_(?:\{[^{}]*\}|\\?\w)")


def stated_value(relation: Relation) -> str | None:
    """The value that an equation states, or None if it states none."""
    if not relation.equation:
        return None
    first, last = relation.sides[0], relation.sides[-1]
    if all(is_name(side) or _is_calculation(side) for side in relation.sides[:-1]) and not is_name(last):
        return last
    if len(relation.sides) > 2 and exact_or_none(quantity(last).value) is not None:
        return last  # "m + n = 3 + 201 = 204"
    if len(relation.sides) == 2 and is_name(last) and not is_name(first):
        return first
    if all(is_name(side) for side in relation.sides):
        return last
    if isinstance(shape_of(first), Ratio) and isinstance(shape_of(last), Ratio):
        return last
    return None


def is_name(side: str) -> bool:
    r"""Whether `side` names something, as `x`, `f(2)`, `|AB|`, `x_{1}`, `\text{Area}` and `(p, q)` do."""
    bare = _SUBSCRIPT.sub("", _CALL.sub("f", side))
    return (
        _NAME.fullmatch(bare) is not None
        and re.search(r"\\(?:frac|sqrt|cdot|times|pm|infty|pi)(?![A-Za-z])", bare) is None
    )


def _is_calculation(side: str) -> bool:
    r"""Whether `side` is arithmetic without symbols; words do not count: `5 \text{ apples} + 3`."""
    bare = re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+|(?<![\\A-Za-z])[A-Za-z]{3,}", "", side)
    return any(map(str.isdigit, bare)) and re.search(r"[A-Za-z]", bare) is None


def assigned_values(items: Sequence[str]) -> list[str] | None:
    """The values of `x = 1, y = 2`, in this order; None if these are not assignments to different names."""
    names, values = [], []
    for item in items:
        shape = shape_of(item)
        if not isinstance(shape, Relation) or not shape.equation or not is_name(shape.sides[0]):
            return None
        names.append("".join(shape.sides[0].split()))
        values.append(shape.sides[-1])
    return values if len(set(names)) == len(names) else None


def both_bounds(items: Sequence[str]) -> Ordered | None:
    r"""The interval of `x \ge 1` and `x < 3`; None if these are not a lower and an upper bound."""
    bounds = [shape_of(item) for item in items]
    if len(bounds) != 2 or not all(isinstance(bound, Ordered) for bound in bounds):
        return None
    lower, upper = sorted(
        (bound for bound in bounds if isinstance(bound, Ordered)), key=lambda one: one.items[0] == r"-\infty"
    )
    if lower.items[1] != r"\infty" or upper.items[0] != r"-\infty":
        return None
    return Ordered((lower.items[0], upper.items[1]), lower.brackets[0] + upper.brackets[1])
