"""The tree digest equals its definition, and sees what an engine's memory may have wrong."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning.model.tensors import DTYPE_NAME
from pruning.model.tree_digest import ROW, TABLES, sums_on_device, sums_on_host, tree_digest

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
MODULUS = 1 << 64
HALF = 1 << 63
sizes = st.integers(0, 40) | st.integers(4 * ROW - 9, 4 * ROW + 9) | st.integers(8 * ROW - 5, 13 * ROW)


def naive(tensor: torch.Tensor) -> str:
    """The definition, in Python's unbounded integers."""
    content = bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())
    content += bytes(-len(content) % (8 * ROW))
    words = struct.unpack(f"<{len(content) // 8}q", content)
    a, b = (table.tolist() for table in TABLES)
    leaves: tuple[list[int], list[int]] = ([], [])
    for start in range(0, len(words), ROW):
        row = words[start : start + ROW]
        leaves[0].append(sum(x * weight for x, weight in zip(row, a, strict=True)))
        leaves[1].append(sum((x >> 32) * weight for x, weight in zip(row, b, strict=True)))
    signed = [(leaf + HALF) % MODULUS - HALF for leaf in leaves[0] + leaves[1]]
    shape = "x".join(map(str, tensor.shape))
    return hashlib.sha256(
        f"{DTYPE_NAME[tensor.dtype]}|{shape}|".encode() + struct.pack(f"<{len(signed)}q", *signed)
    ).hexdigest()


def random_tensor(seed: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Any bits, NaN and infinities among them."""
    raw = np.random.default_rng(seed).integers(0, 256, count * dtype.itemsize, np.uint8)
    tensor = torch.empty(count, dtype=dtype)
    tensor.view(torch.uint8).copy_(torch.from_numpy(raw))
    return tensor


def flipped(tensor: torch.Tensor, bit: int) -> torch.Tensor:
    other = tensor.clone()
    other.view(torch.uint8)[bit // 8] ^= 1 << bit % 8
    return other


@given(st.integers(0, 99), sizes, st.sampled_from(DTYPES))
def test_digest_is_the_definition(seed: int, count: int, dtype: torch.dtype) -> None:
    tensor = random_tensor(seed, count, dtype)
    assert tree_digest(tensor) == naive(tensor)
    if count:
        assert tree_digest(tensor[1:]) == naive(tensor[1:].clone()), "a view that no word is aligned with"


@given(st.integers(0, 99), st.integers(2, 60), st.integers(2, 60), st.sampled_from(DTYPES))
def test_view_has_the_digest_of_its_copy(seed: int, rows: int, columns: int, dtype: torch.dtype) -> None:
    tensor = random_tensor(seed, rows * columns, dtype).view(rows, columns)
    for view in (tensor.T, tensor[:, 1:], tensor[1:], tensor[::2]):
        assert tree_digest(view) == naive(view.clone())


def test_block_of_many_rows_is_the_definition() -> None:
    tensor = random_tensor(1, 700_001, torch.bfloat16)
    assert tree_digest(tensor) == naive(tensor)


def test_digest_of_a_parameter_is_that_of_its_values() -> None:
    values = torch.randn(3, 5)
    assert tree_digest(torch.nn.Parameter(values)) == tree_digest(values)


@given(st.data(), st.booleans(), st.sampled_from(DTYPES))
def test_any_flipped_bit_is_seen(data: st.DataObject, zeros: bool, dtype: torch.dtype) -> None:
    count = data.draw(sizes.filter(bool))
    tensor = torch.zeros(count, dtype=dtype) if zeros else random_tensor(count, count, dtype)
    bit = data.draw(st.integers(0, count * dtype.itemsize * 8 - 1))
    assert tree_digest(flipped(tensor, bit)) != tree_digest(tensor)


@given(st.data(), st.booleans(), st.sampled_from(DTYPES))
def test_two_different_elements_that_changed_places_are_seen(
    data: st.DataObject, sparse: bool, dtype: torch.dtype
) -> None:
    """`sparse`: one bit in a tensor of zeros moves, where sums modulo 2^64 have the least to go by."""
    count = data.draw(sizes.filter(lambda size: size > 1))
    one, other = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    tensor = torch.zeros(count, dtype=dtype) if sparse else random_tensor(count, count, dtype)
    bits = tensor.view(torch.int16 if dtype.itemsize == 2 else torch.int32)
    bits[one] = bits[other] ^ (1 << data.draw(st.integers(0, dtype.itemsize * 8 - 2)))
    if sparse and data.draw(st.booleans()):
        bits[one] = torch.iinfo(bits.dtype).min  # the sign alone, as of -0.0
    exchanged = tensor.clone()
    exchanged[[one, other]] = tensor[[other, one]]
    assert tree_digest(exchanged) != tree_digest(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_accidents_of_whole_tensors_are_seen(dtype: torch.dtype) -> None:
    tensor = torch.randn(64, 96, dtype=torch.float32, generator=torch.Generator().manual_seed(1)).to(dtype)
    half = tensor.clone()
    half[32:] = 0
    accidents = {
        "negated": -tensor,
        "half-written": half,
        "two rows exchanged": tensor[[1, 0, *range(2, 64)]],
        "shifted by a row": tensor.roll(1, 0),
        "shifted by a column": tensor.roll(1, 1),
        "columns in reverse": tensor.flip(1),
        "another shape": tensor.view(96, 64),
        "longer by zeros": torch.cat((tensor, torch.zeros(1, 96, dtype=dtype))),
        "stale": tensor + 1,
    }
    digests = [tree_digest(tensor), *map(tree_digest, accidents.values())]
    assert len(set(digests)) == len(digests)
    assert tree_digest(torch.zeros(4, dtype=torch.bfloat16)) != tree_digest(torch.zeros(4, dtype=torch.float16))


@pytest.mark.parametrize("table", TABLES)
def test_tables_hold_what_the_certainty_rests_on(table: torch.Tensor) -> None:
    assert bool((table & 1).all())
    assert len({word & 0xFFFFFFFF for word in table.tolist()}) == ROW


def test_digest_of_old_stays() -> None:
    """Manifests hold it: a change of the definition makes every stored patch's proof fail."""
    tensor = torch.arange(5000, dtype=torch.float32)
    assert tree_digest(tensor) == "d531f8c5a42c9e1c5a9692c19ad4a805e4429938cffac6514d7817bf042c552f"
    assert tree_digest(torch.empty((0, 3))) == "a8c552dd309ddb106f14a30e35249a97c40101480941756432f9abb902c8e85c"


def test_a_devices_way_of_summing_is_the_hosts() -> None:
    words = random_tensor(3, 5 * ROW * 8, torch.float32).view(torch.int64).view(-1, ROW)
    before = words.clone()
    assert torch.equal(sums_on_device(words, *TABLES), sums_on_host(words, *TABLES))
    assert torch.equal(words, before), "the weights themselves must stay"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", DTYPES)
def test_device_computes_the_same(dtype: torch.dtype) -> None:
    tensor = random_tensor(2, 40_000_001, dtype)
    assert tree_digest(tensor.cuda()) == tree_digest(tensor)
    assert tree_digest(tensor[1:].cuda()[1:]) == tree_digest(tensor[2:])
