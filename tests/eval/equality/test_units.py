"""A value and the words around it."""

import pytest

from eval.equality.notation import plain
from eval.equality.units import quantity


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("5", "5", ""), (r"5 \text{ cm}", "5", "centimetre"), (r"5\text{ cm}^2", "5", "centimetre^2"),
        ("5 cm²", "5", "centimetre^2"), (r"5 \text{ square centimeters}", "5", "centimetre^2"),
        (r"\$5", "5", "dollar"), ("5€", "5", "euro"), ("5\\%", "5", "%"), ("5 percent", "5", "%"),
        (r"60^\circ", "60", "degree"), (r"60^{\circ}\text{C}", "60", "degree"), ("39 eggs", "39", ""),
        ("10元", "10", "yuan"), (r"\text{Answer: } 5", "5", ""), (r"\textbf{(E) } 27", "27", ""), ("(E) 27", "27", ""),
        (r"27 \text{ miles from City } A", "27", "mile"), (r"5 \text{ (since } 2+3=5)", "5", ""),
        ("11^{\\text{th}}", "11", ""), ("5x", "5x", ""), ("ab", "ab", ""), (r"\text{odd}", r"\text{odd}", ""),
        ("x m", "x m", ""), (r"9\pi \text{ cm}", r"9\pi", "centimetre"),
    ],
)  # fmt: skip
def test_quantities(text, value, unit):
    assert quantity(plain(text)) == (value, unit)
