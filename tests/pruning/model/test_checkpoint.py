"""Checkpoints: digests depend on content alone, and what cannot be pruned is refused by name."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from pruning.files import cache_folder
from pruning.model.checkpoint import Checkpoint
from tests.pruning.conftest import make_checkpoint


def edit_config(folder, **changes):
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value != "drop"}))


@pytest.fixture
def copy(checkpoints, tmp_path):
    shutil.copytree(checkpoints["llama"], tmp_path / "copy")
    return tmp_path / "copy"


def test_digest_ignores_sharding_names_and_versions(checkpoints, tmp_path):
    base = Checkpoint.open(checkpoints["qwen3"])
    assert len({header.file for header in base.tensors.values()}) > 1
    AutoModelForCausalLM.from_pretrained(checkpoints["qwen3"]).save_pretrained(tmp_path / "single")
    edit_config(tmp_path / "single", transformers_version="0.0", _name_or_path="elsewhere", use_cache=False)
    assert Checkpoint.open(tmp_path / "single").digest() == base.digest()


def test_digest_reads_old_and_new_rope_spelling_alike(copy):
    before = Checkpoint.open(copy).digest()
    parameters = Checkpoint.open(copy).config["rope_parameters"]
    edit_config(copy, rope_parameters="drop", rope_theta=parameters["rope_theta"], rope_scaling=None)
    assert Checkpoint.open(copy).digest() == before
    edit_config(copy, rope_theta=parameters["rope_theta"] + 1)
    assert Checkpoint.open(copy).digest() != before


def test_a_damaged_digest_cache_is_ignored(copy):
    before = Checkpoint.open(copy).digest()
    for entry in (cache_folder() / "digests").iterdir():
        entry.write_text("{")
    assert Checkpoint.open(copy).digest() == before


def test_a_changed_byte_changes_the_digest(copy):
    before = Checkpoint.open(copy).digest()
    file = copy / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert Checkpoint.open(copy).digest() != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts": 8}, "num_experts=8 makes this a mixture-of-experts"),
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_hidden_layers": 5}, r"9 tensors are missing, first 'model\.layers\.4"),
        ({"num_hidden_layers": 3}, r"'model\.layers\.3.* is not part of a llama decoder"),
        ({"intermediate_size": 78}, r"has shape \[48, 77\], config.json implies \[48, 78\]"),
        ({"hidden_size": "drop"}, "no positive integer 'hidden_size'"),
    ],
)
def test_unsupported_models_are_refused_by_name(copy, changes, message):
    edit_config(copy, **changes)
    with pytest.raises(ValueError, match=message):
        Checkpoint.open(copy)


def test_adapters_are_refused_by_name(copy):
    tensors = load_file(copy / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.lora_A.weight"] = torch.zeros(2, 2)
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"lora_A\.weight' is not part of"):
        Checkpoint.open(copy)


@pytest.mark.parametrize(
    ("kind", "changes", "lost", "count"),
    [
        ("qwen2", {}, "self_attn.k_proj.bias", 12),
        ("qwen3", {"attention_bias": True}, "self_attn.k_proj.bias", 16),
        ("llama", {"attention_bias": True}, "self_attn.k_proj.bias", 16),
        ("llama", {"mlp_bias": True}, "mlp.down_proj.bias", 12),
    ],
)
def test_checkpoint_without_the_biases_of_its_architecture_is_refused(tmp_path, kind, changes, lost, count):
    folder = make_checkpoint(tmp_path / kind, kind, **changes)
    assert any(name.endswith(".bias") for name in Checkpoint.open(folder).tensors)
    whole = {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    # Of a folder with shards and a single file, the single file counts.
    save_file({n: t for n, t in whole.items() if not n.endswith(".bias")}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{count} tensors are missing, first 'model\.layers\.0\.{lost}'.*download"):
        Checkpoint.open(folder)


def test_incomplete_folders_are_refused_by_file(copy, checkpoints, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        Checkpoint.open(tmp_path / "nowhere")
    file = copy / "model.safetensors"
    content = file.read_bytes()
    for cut, message in ((4, "truncated or not"), (60, "truncated or not"), (-1, "truncated")):
        file.write_bytes(content[:cut])
        with pytest.raises(ValueError, match=rf"model\.safetensors: {message}"):
            Checkpoint.open(copy)
    file.unlink()
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor"):
        Checkpoint.open(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not valid JSON"):
        Checkpoint.open(copy)
    shutil.copytree(checkpoints["qwen3"], tmp_path / "sharded")
    lost = sorted((tmp_path / "sharded").glob("model-*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(ValueError, match=f"{lost.name}: missing"):
        Checkpoint.open(tmp_path / "sharded")
