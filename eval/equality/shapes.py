r"""The outermost form of an answer: a value, list, set, tuple or interval, union, matrix, relation or ratio.

Math-verify reads `(1,2)`, `\{1,2\}` and `1,2` much alike; here each is what it says, and elements are compared one by
one (`equality`).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One expression."""

    text: str


@dataclass(frozen=True)
class Several:
    r"""Values in any order: `1, 2`, `\{1, 2\}`, `1 \text{ and } 2`, `\pm 1`."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Ordered:
    """A tuple, vector, point or interval."""

    items: tuple[str, ...]
    brackets: str
    """Both brackets, such as `(]`."""


@dataclass(frozen=True)
class Union:
    """Sets joined by ∪."""

    parts: tuple[str, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Relation:
    r"""Sides and the operators between them: `=`, `<`, `>`, `\le`, `\ge`, `\ne`, `\in`."""

    sides: tuple[str, ...]
    operators: tuple[str, ...]

    @property
    def equation(self) -> bool:
        return set(self.operators) == {"="}


@dataclass(frozen=True)
class Ratio:
    """`a:b`, or a time of day."""

    terms: tuple[str, ...]


Shape = Value | Several | Ordered | Union | Matrix | Relation | Ratio

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENERS, _CLOSERS = frozenset({"(", "[", "{", r"\{", r"\begin"}), frozenset({")", "]", "}", r"\}", r"\end"})
_OPERATORS = frozenset({"=", "<", ">", r"\le", r"\ge", r"\ne", r"\in"})
_CONJUNCTION = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
_TEXT_CONJUNCTION = re.compile(r"\\text\{([^{}]*?)\s*(?:\b(?:and|or)\b|,)\s*([^{}]*)\}")
# A determinant (`vmatrix`) is a number.
_MATRIX = re.compile(
    r"\[?\s*\\begin\{([pbB]?matrix|array|smallmatrix)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}\s*\]?", re.DOTALL
)
_PUNCTURED = re.compile(r"\(-\\infty,\\infty\) ?(?:\\setminus|\\backslash|-|\\) ?\\\{([^{},]+)\\\}")
_POINT = re.compile(r"[A-Z] ?(?=\()")
_MIRRORED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_ALIKE = {r"\{": "{", r"\}": "}"}


def shape_of(text: str) -> Shape:
    """The outermost form of `text`, which is in `notation.plain`."""
    text = _listed(text.strip())
    for separator in (";", ","):
        parts = split(text, {separator})[0]
        parts = [part for part in parts if part]
        if len(parts) > 1:
            return Several(tuple(parts))
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None:
        rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", matrix[2]) if row.strip()]
        return Matrix(tuple(tuple(entry.strip() for entry in row.split("&")) for row in rows))
    sides, operators = split(text, _OPERATORS)
    if operators and all(sides):
        return _relation(sides, operators)
    if (punctured := _PUNCTURED.fullmatch(text)) is not None:
        return _all_but(punctured[1])
    parts, _ = split(text, {r"\cup"})
    if len(parts) > 1:
        return Union(tuple(parts))
    if (bracketed := _bracketed(text)) is not None:
        return bracketed
    if r"\pm" in text or r"\mp" in text:
        return Several((_signs(text, "+", "-"), _signs(text, "-", "+")))
    parts, _ = split(text, {":"})
    if len(parts) > 1 and all(parts):
        return Ratio(tuple(parts))
    return Value(text)


def split(text: str, separators: frozenset[str] | set[str]) -> tuple[list[str], list[str]]:
    r"""`text` cut at the `separators` outside of all brackets: (parts, the separators found). One pass.

    An interval such as `[0, 1)` is closed by either bracket.
    """
    parts, found, depth, begin = [], [], 0, 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in _OPENERS:
            depth += 1
        elif token in _CLOSERS:
            depth = max(0, depth - 1)
        elif depth == 0 and token in separators:
            parts.append(text[begin : match.start()].strip())
            found.append(token)
            begin = match.end()
    parts.append(text[begin:].strip())
    return parts, found


def mirrored(relation: Relation) -> Relation:
    """The same relation read from right to left."""
    operators = tuple(_MIRRORED.get(operator, operator) for operator in reversed(relation.operators))
    return Relation(tuple(reversed(relation.sides)), operators)


def _signs(text: str, upper: str, lower: str) -> str:
    r"""`text` with every `\pm` and `\mp` replaced."""
    return re.sub(r"\\mp(?![A-Za-z])", lower, re.sub(r"\\pm(?![A-Za-z])", upper, text)).strip()


def _listed(text: str) -> str:
    text = _TEXT_CONJUNCTION.sub(r"\\text{\1} , \\text{\2}", text)
    return re.sub(r"\\text\{\s*\}", " ", _CONJUNCTION.sub(",", text)).strip()


def _relation(sides: list[str], operators: list[str]) -> Shape:
    if operators == [r"\in"]:
        return shape_of(sides[1])
    relation = Relation(tuple(sides), tuple(operators))
    return _as_interval(relation) or relation


def _as_interval(relation: Relation) -> Shape | None:
    r"""The set that an inequality for one variable describes: `-2 \le x < 7` is `[-2, 7)`."""
    sides, operators = relation.sides, relation.operators
    if set(operators) & {"=", r"\in"}:
        return None
    if len(sides) == 2:
        if _is_variable(sides[1]) and not _is_variable(sides[0]):
            return _as_interval(mirrored(relation))
        if not _is_variable(sides[0]) or _is_variable(sides[1]):
            return None
        bound = sides[1]
        forms: dict[str, Shape] = {
            "<": Ordered((r"-\infty", bound), "()"),
            r"\le": Ordered((r"-\infty", bound), "(]"),
            ">": Ordered((bound, r"\infty"), "()"),
            r"\ge": Ordered((bound, r"\infty"), "[)"),
            r"\ne": _all_but(bound),
        }
        return forms[operators[0]]
    if len(sides) != 3 or not _is_variable(sides[1]) or _is_variable(sides[0]):
        return None
    if operators[0] in (">", r"\ge"):
        return _as_interval(mirrored(relation))
    if not set(operators) <= {"<", r"\le"}:
        return None
    return Ordered((sides[0], sides[2]), ("(" if operators[0] == "<" else "[") + (")" if operators[1] == "<" else "]"))


def _all_but(number: str) -> Union:
    return Union((rf"(-\infty,{number})", rf"({number},\infty)"))


def _is_variable(side: str) -> bool:
    return re.fullmatch(r"[A-Za-z](?:_\{?\w+\}?)?|\\(?:theta|alpha|beta|lambda|phi|varphi|omega)", side) is not None


def _bracketed(text: str) -> Shape | None:
    text = _POINT.sub("", text, count=1) if _POINT.match(text) and "," in text else text
    opening, closing = text[:1], text[-1:]
    if text.startswith(r"\{") and text.endswith(r"\}"):
        inner = text[2:-2].strip()
        _, bars = split(inner, {r"\mid", "|", ":"})
        if bars:
            described = re.split(r"\\mid|\||:", inner, maxsplit=1)[1]
            shape = shape_of(described)
            return shape if not isinstance(shape, Value) else None
        shape = shape_of(inner) if inner else Several(())
        return shape if isinstance(shape, Several) else Several((inner,))
    if opening not in ("(", "[") or closing not in (")", "]") or not _one_bracket(text):
        return None
    items = split(text[1:-1], {",", ";"})[0]
    if len(items) > 1 and all(items):
        return Ordered(tuple(items), opening + closing)
    if opening == "(" and closing == ")":
        return shape_of(text[1:-1])
    return None


def _one_bracket(text: str) -> bool:
    """Whether the bracket that opens `text` is closed by its last character."""
    depth = 0
    for match in _TOKEN.finditer(text):
        depth += (match[0] in _OPENERS) - (match[0] in _CLOSERS)
        if depth == 0:
            return match.end() == len(text)
    return False
