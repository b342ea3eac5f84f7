"""A calculation that is left to the reader is no number."""

import pytest

from eval.equality.unfinished import repeats_the_task


@pytest.mark.parametrize(
    "answer", ["7 * 4", "7*4", "3 + 4 - 2", r"7 \cdot 4", "(7) × 4", "1,000 + 2", "-3 - 4", "7 x 4"]
)
def test_a_calculation_is_not_the_number_that_it_gives(answer: str) -> None:
    assert repeats_the_task("28", answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("28", "28"),
        ("28", "-28"),
        ("28", "1,000"),
        ("28", "7 * 4 = 28"),
        ("28", r"\frac{56}{2}"),
        ("28", "56/2"),
        ("1024", "2^{10}"),
        ("28", "7x"),
        ("28", r"7 \sqrt{16}"),
        (r"3 + \sqrt{2}", "1 + 2"),
        ("2x + 3", "2 + 3"),
    ],
)
def test_values_and_other_golds_are_compared(gold: str, answer: str) -> None:
    assert not repeats_the_task(gold, answer)
