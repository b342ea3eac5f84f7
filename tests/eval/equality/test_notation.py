"""One notation for what is written in many."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.equality.notation import plain, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("½", r"\frac{1}{2}"), ("√3", r"\sqrt{3}"), ("√(x+1)", r"\sqrt{x+1}"), ("x²", "x^{2}"), ("a₁", "a_{1}"),
        ("−5。", "-5"), (r"\left( 3,\, \frac{π}{2} \right)", r"( 3, \frac{\pi }{2} )"), (r"\dfrac12", r"\frac{1}{2}"),
        (r"\mathbf{025}", "025"), (r"{\bf 5}", "5"), (r"\boxed{\boxed{9}}", "9"), (r"\textcolor{red}{5}", "5"),
        (r"\underline{5}", "5"), ("$5$.", "5"), (r"x \approx 5", "x = 5"), (r"\pi \approx 3.14", r"\pi"),
        (r"\approx 5", "5"), ("]0,1]", "(0,1]"), ("about 5", "5"), (r"{8 \choose 3}", r"\binom{8 }{ 3}"), ("𝟓", "5"),
        (r"\begin{aligned} x &= 5 \end{aligned}", "x = 5"), (r"\text{13}", "13"), (r"\textbf{odd}", r"\text{odd}"),
        ("sqrt(2)", r"\sqrt{2}"), (r"4\sqrt(2)", r"4\sqrt{2}"), ("exp(16)", "e^{16}"),
        ("x^2 + 2*x", r"x^2 + 2\cdot x"), ("x<=3", r"x\le 3"), (r"1 & 2 \\ 3", r"1 & 2 \\ 3"),
    ],
)  # fmt: skip
def test_spellings(text, expected):
    assert plain(text) == expected


@given(st.text(alphabet="0123456789+-*/^_{}()[]\\$ .,;=abxπ√½²−%°", max_size=60))
def test_plain_notation_stays_as_it_is(text):
    once = plain(text)
    assert plain(once).split() == once.split() or plain(plain(once)) == plain(once)


@pytest.mark.parametrize(
    ("one", "other"),
    [(r"\text{6:00 PM}", r"6:00 \text{ p.m.}"), (r"\text{An Ellipse.}", "ellipse"), ("the circle", "Circle")],
)
def test_words_are_compared_without_case_articles_and_stops(one, other):
    assert words(plain(one)) == words(plain(other))
