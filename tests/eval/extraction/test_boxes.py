r"""`\boxed{...}`: which one is the answer, when it is none, and what completes a box that a cue leaves open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.extraction.boxes import boxed_answer, boxes_in, completed_box


@pytest.mark.parametrize(
    ("text", "content", "boxes"),
    [
        (r"\boxed{1} but \boxed{2}", "2", 1),
        (r"\boxed{\frac{a}{\sqrt{b}}} .", r"\frac{a}{\sqrt{b}}", 1),
        (r"\boxed{\left\{ 1 \right\}}", r"\left\{ 1 \right\}", 1),
        (r"\boxed {3}", "3", 1),
        (r"\boxed 4", "4", 1),
        (r"\framebox{5}", "5", 1),
        (r"\boxed{\boxed{5}}", r"\boxed{5}", 1),
        (r"\boxed{} \boxed{5} \boxed{ } \boxed{\text{}}", "5", 1),
        (r"\boxed{1} \quad \text{and} \quad \boxed{2}", "1, 2", 2),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3", 3),
        (r"\boxed{7}. \boxed{7}", "7", 1),
        (r"\boxed{1} no no no \boxed{2}", "2", 1),
    ],
)
def test_the_last_box_that_holds_something(text, content, boxes):
    assert boxed_answer(text) == (content, boxes)


@pytest.mark.parametrize("text", ["no box", r"\boxed", r"\boxed{}", r"\boxed{\,}", r"\boxed\text{5}"])
def test_no_box(text):
    assert boxed_answer(text) is None


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{2", ""),
        (r"\boxed{7} is my first idea, but the correct one is \boxed{", ""),
        (r"\boxed{7} and then \boxed{4", ""),
        ("\\boxed{12}\n\\boxed{12}\n\\boxed{1", "12"),  # a loop, cut while it repeats itself
    ],
)
def test_a_text_that_ends_inside_a_box_was_cut(text, content):
    boxed = boxed_answer(text)
    assert boxed is not None
    assert boxed.content == content


@pytest.mark.parametrize(
    ("cue", "text", "content"),
    [
        (r"The answer is \boxed{", "5} since", "5"),
        (r"The answer is $\boxed{", r"\frac{1}{2}}$ \boxed{7}", r"\frac{1}{2}"),
        (r"\boxed{", "5\nThat is all.", "5"),
        (r"\boxed{", r"\boxed{5", r"\boxed{5"),
        ("Final Answer:", "5}", None),
        (r"\boxed{1} again:", "5}", None),
    ],
)
def test_a_cue_that_opens_a_box_is_completed(cue, text, content):
    assert completed_box(cue, text) == content


braced = st.recursive(
    st.text(alphabet="ab 1+", max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
)


@given(st.lists(st.tuples(st.text(alphabet="xy z.", max_size=8), braced), max_size=5))
def test_every_box_is_found_with_balanced_braces(parts):
    text = "".join(f"{before}\\boxed{{{content}}}" for before, content in parts)
    assert [box.content for box in boxes_in(text)] == [content for _, content in parts]
    assert all(box.closed and text[box.start : box.end].endswith("}") for box in boxes_in(text))
