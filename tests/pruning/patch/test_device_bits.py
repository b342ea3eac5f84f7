"""Keep bits packed and unpacked by a device's operators are the codec's."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.patch.codec import pack, unpack
from pruning.patch.device_bits import pack_on_device, unpack_on_device


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_bits_are_packed_as_by_the_codec_and_come_back(rows: int, columns: int, seed: int) -> None:
    keep = np.random.default_rng(seed).random((rows, columns)) < 0.8
    packed = pack_on_device(torch.from_numpy(keep))
    assert (packed.numpy() == pack(keep)).all()
    assert (unpack_on_device(packed, torch.Size(keep.shape)).numpy() == unpack(pack(keep), keep.shape)).all()
