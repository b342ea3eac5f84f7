"""Keep bits survive encoding, and damage is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pruning.patch.codec import clear_dropped, decode, encode, pack, unpack

masks = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 70)))


@given(masks)
def test_round_trip(keep):
    encoding, content = encode(pack(keep))
    np.testing.assert_array_equal(unpack(decode(encoding, content, keep.size), keep.shape), keep)
    assert len(content) <= (keep.size + 7) // 8


@pytest.mark.parametrize(("sparsity", "bits"), [(0.1, 0.49), (0.2, 0.74), (0.5, 1.0)])
def test_bits_per_weight_come_close_to_their_entropy(sparsity, bits):
    keep = np.random.default_rng(0).random((1024, 1024)) >= sparsity
    encoding, content = encode(pack(keep))
    assert len(content) * 8 / keep.size <= bits
    np.testing.assert_array_equal(unpack(decode(encoding, content, keep.size), keep.shape), keep)


@pytest.mark.parametrize("sparsity", [0.1, 0.5])
def test_wrong_shape_and_truncation_are_refused(sparsity):
    keep = np.random.default_rng(0).random((64, 64)) >= sparsity
    encoding, content = encode(pack(keep))
    for damaged, count in ((content[:-9], keep.size), (content, keep.size - 64), (content, keep.size * 2)):
        with pytest.raises(ValueError, match="keep bits"):
            decode(encoding, damaged, count)


@given(masks, st.sampled_from([np.uint16, np.uint32]), st.sampled_from([0, 0x8000]))
def test_clearing_zeroes_the_dropped_and_nothing_else(keep, kind, left):
    words = np.random.default_rng(0).integers(1, 2**16, keep.size).astype(kind)
    expected = np.where(keep.ravel(), words, words & left)
    encoding, content = encode(pack(keep))
    clear_dropped(words, decode(encoding, content, keep.size), left)
    np.testing.assert_array_equal(words, expected)
