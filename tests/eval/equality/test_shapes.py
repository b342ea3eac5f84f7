"""The outermost form of an answer."""

import pytest

from eval.equality.notation import plain
from eval.equality.shapes import Matrix, Ordered, Ratio, Relation, Several, Union, Value, mirrored, shape_of


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("x+1", Value("x+1")),
        ("((x+1))", Value("x+1")),
        ("1, 2", Several(("1", "2"))),
        ("1; 2", Several(("1", "2"))),
        (r"1 \text{ and } 2", Several(("1", "2"))),
        (r"\{1, \frac{1}{2}\}", Several(("1", r"\frac{1}{2}"))),
        (r"\{\}", Value(r"\emptyset")),
        (r"\pm 2", Several(("+ 2", "- 2"))),
        ("(1, f(2,3))", Ordered(("1", "f(2,3)"), "()")),
        ("[0, 1)", Ordered(("0", "1"), "[)")),
        (r"x \ge 2", Ordered(("2", r"\infty"), "[)")),
        (r"3 > x", Ordered((r"-\infty", "3"), "()")),
        (r"7 \ge x > -2", Ordered(("-2", "7"), "(]")),
        (r"x \in (1,3)", Ordered(("1", "3"), "()")),
        (r"(0,1)\cup[2,3]", Union(("(0,1)", "[2,3]"))),
        (r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}", Matrix((("1", "2"), ("3", "4")))),
        ("7:32", Ratio(("7", "32"))),
        ("2x - y = 3", Relation(("2x - y", "3"), ("=",))),
        ("f(2) < f(1)", Relation(("f(2)", "f(1)"), ("<",))),
    ],
)
def test_shapes(text, shape):
    assert shape_of(plain(text)) == shape


def test_a_mirrored_relation_reads_from_right_to_left():
    relation = Relation(("a", "b", "c"), ("<", r"\le"))
    assert mirrored(relation) == Relation(("c", "b", "a"), (r"\ge", ">"))
    assert mirrored(mirrored(relation)) == relation
