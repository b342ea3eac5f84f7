"""Which expression of a text is its answer, by which rule; and that finding it takes time in proportion to the text."""

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.extraction.choices import find_choice
from eval.extraction.expressions import find_expression, find_whole_number
from tests.support.answer_cases import CHOICES


@pytest.mark.parametrize(
    ("text", "expression", "rule"),
    [
        ("Answer: 3\n\nFinal Answer: 4", "4", "final answer"),
        ("The answer is 3. No: the answer is 4.", "4", "answer"),
        ("The answer is $x = 3$, as shown.", "x = 3", "answer"),
        ("### Answer\n\n42", "42", "answer"),
        ("5 is the answer to the question.", "5", "answer"),
        ("答案：5", "5", "answer"),
        ('```json\n{"why": "x", "answer": "5"}\n```', "5", "structured"),
        ("<answer>5</answer>", "5", "structured"),
        (r"\boxed{1} and \boxed{2}", "1, 2", "adjacent boxes"),
        ("We find\n$$\n\\frac{1}{2}\n$$", "\\frac{1}{2}", "last line"),
        ("**\\frac{1}{2}**", "\\frac{1}{2}", "last line"),
        ("36 + 3 = 39 eggs", "36 + 3 = 39 eggs", "last line"),
        (" 5\n\nExplanation: we add 2 and 3.", "5", "first line"),
        (" $5$\n\nTo see this, note that $4-1=3$.", "5", "first line"),
        ("Therefore $x = 5$.", "x = 5", "formula"),
        ("The answer is $5$ or $7$.", "5, 7", "answer"),
    ],
)
def test_the_rule_that_finds_it(text, expression, rule):
    assert find_expression(text) == (expression, rule)


@pytest.mark.parametrize(
    "text",
    [
        "", "I do not know", "The answer is not 5.", "Answer: 3\n\\boxed{4", "3. This is the third step",
        "3 + 0 is a number that is equal to 0.", "So the walk takes 204 minutes.", "Put your answer within \\boxed{}.",
        "Clearly the value exceeds everything we know", "The volume of $ABC$ is then 120.",
    ],
)  # fmt: skip
def test_prose_gives_none(text):
    assert find_expression(text) is None


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (" 5\n\nExplanation: we add 2 and 3.", "5"),
        (" $5$\n\nNote that $4-1=3$.", "5"),
        (" 42. The answer is 12.", "42"),
        (" The volume of $ABC$ is 120.", "120"),
        (" We compute $2+3=5$. So \\boxed{5}", "5"),
        (":\n\nYes.\n\nThis is so since 2 is even.", "Yes"),
        (": **\n42", "42"),
        (" 7 * 4, which is 28.", "28"),
        (" 7 * 4, which is a difficult task.", "7 * 4"),
    ],
)
def test_the_first_expression_completes_a_cue(text, expression):
    assert find_expression(text, "Final Answer:") == (expression, "cue")


def test_a_cue_that_nothing_completes_leaves_the_other_rules():
    text = "\nLet $x$ be the number of apples.\nThen $x = 7$.\n\\boxed{7}"
    assert find_expression(text, "Final Answer:") == ("7", "box")


def test_a_whole_number_is_the_last_side_of_an_equation():
    assert find_expression("$m + n = 204$") == ("m + n = 204", "last line")
    assert find_whole_number("$m + n = 204$") == ("204", "last line")
    assert find_whole_number("$m + n = k$") == ("m + n = k", "last line")


PIECES = [
    "answer", "final answer", "answer is ", "Answer: ", "\\boxed{", "\\boxed", "}", "{", "$", "$$", "\\(", "\\[",
    "\\]", " ", "\n", "A", "C", "(", "[", ")", " or ", " and ", ",", ".", "*", "_", "\\text{", "\\frac{1}{2}", "=",
    "5", "47 - 42", "\\", "option", "not A", "<answer>", '"answer": "', "答案：", "because", "\\pm", "-", "\t", "?",
    "#", "is the answer", "<|", "x",
]  # fmt: skip


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join), st.sampled_from(["", "x", "5}"]))
def test_a_hundred_kilobytes_of_any_pattern_take_a_tenth_of_a_second(pattern, end):
    text = pattern * (100_000 // len(pattern)) + end
    searches = [
        lambda: find_expression(text),
        lambda: find_expression(text, "The answer is \\boxed{"),
        lambda: find_whole_number(text, "Final Answer:"),
        lambda: find_choice(text, CHOICES),
        lambda: find_choice(text, CHOICES, "Final Answer:"),
    ]
    for search in searches:
        assert min(_processor_seconds(search) for _ in range(3)) < 0.1


def _processor_seconds(search):
    began = time.process_time()
    search()
    return time.process_time() - began


@given(st.text(max_size=300), st.text(max_size=30))
def test_any_text_is_taken(text, cue):
    find_expression(text, cue)
    find_whole_number(text, cue)
    find_choice(text, CHOICES, cue)
