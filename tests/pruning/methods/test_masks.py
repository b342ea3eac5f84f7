"""Selection against full stable sorts, on scores that tie."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.methods.masks import cut, cutoff, pattern_mask, row_mask
from tests.support import reference as naive


@st.composite
def tied_scores(draw):
    rows, columns, levels = draw(st.integers(1, 9)), draw(st.integers(1, 33)), draw(st.integers(1, 40))
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, levels, (rows, columns))
    scale = draw(st.sampled_from([1.0, 1e-30, 3.3e20, 0.1]))
    return torch.from_numpy(values.astype(np.float32) * np.float32(scale))


@given(tied_scores(), st.floats(0, 0.999))
def test_rows_drop_the_first_of_equals(score, sparsity):
    dropped = ~row_mask(score, sparsity, "exact").numpy()
    np.testing.assert_array_equal(dropped, naive.rows_exact(score.numpy(), sparsity))


@given(tied_scores(), st.floats(0.001, 0.999))
def test_row_threshold_drops_all_equals(score, sparsity):
    rank = int(score.shape[1] * sparsity)
    expected = score.numpy() <= np.sort(score.numpy(), axis=1)[:, rank : rank + 1]
    np.testing.assert_array_equal(~row_mask(score, sparsity, "threshold").numpy(), expected)


@given(st.lists(tied_scores(), min_size=1, max_size=4), st.floats(0, 0.999), st.sampled_from(["exact", "threshold"]))
def test_groups_of_tensors_are_ranked_together(scores, sparsity, selection):
    count = int(sum(score.numel() for score in scores) * sparsity)
    got = [~keep.numpy() for keep in cut(scores, cutoff(partial(iter, scores), count, selection))]
    arrays = [score.numpy() for score in scores]
    expected = (naive.group_exact if selection == "exact" else naive.group_threshold)(arrays, count)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(tied_scores(), st.sampled_from([(2, 4), (4, 8), (1, 4)]))
def test_patterns_drop_n_of_every_m(score, pattern):
    n, m = pattern
    score = score.repeat(1, m)
    np.testing.assert_array_equal(~pattern_mask(score, f"{n}:{m}").numpy(), naive.n_of_m(score.numpy(), n, m))


def test_pattern_needs_whole_groups():
    with pytest.raises(ValueError, match="multiple of 4 inputs, not 6"):
        pattern_mask(torch.ones(2, 6), "2:4")


def test_zero_sparsity_keeps_everything_even_what_ties_with_the_minimum():
    for selection in ("exact", "threshold"):
        assert row_mask(torch.zeros(3, 5), 0.0, selection).all()
