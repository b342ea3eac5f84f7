"""Headers agree with the safetensors library, and damaged ones are refused by file name."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from pruning.model.checkpoint import Checkpoint
from pruning.model.tensors import read_tensor
from pruning.patch.patch import digest_tensor


@pytest.fixture
def copy(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path / "copy")
    return tmp_path / "copy"


def complaint(folder):
    """What opening says, or None: some flips, as in a dtype's case, leave a header that still makes sense."""
    try:
        Checkpoint.open(folder)
    except ValueError as error:
        return str(error)
    return None


def test_headers_agree_with_safetensors(checkpoints):
    for folder in checkpoints.values():
        base = Checkpoint.open(folder)
        stored = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
        assert base.tensors.keys() == stored.keys()
        for name, tensor in stored.items():
            assert torch.equal(read_tensor(base.tensors[name]), tensor)
            assert base.tensor_digests()[name] == digest_tensor(tensor)


def test_a_flipped_header_byte_is_an_error_with_a_file_name(copy):
    file = copy / "model.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    for position in range(8, 8 + min(length, 400), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x04
        file.write_bytes(damaged)
        assert complaint(copy) is None or str(copy) in complaint(copy)
