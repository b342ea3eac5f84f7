"""Which checkpoints are variants of a base: what is refused, and what corresponds to what where blocks are missing."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from pruning.model.architecture import HEAD, computation
from pruning.model.checkpoint import Checkpoint
from pruning.patch.counterparts import Counterparts, _align
from tests.pruning.conftest import SHAPES, make_checkpoint
from tests.support.checkpoints import edited_checkpoint, without_block

OWN_MODEL = "but a model of its own; list it under `models:` of a grid instead"


@pytest.fixture
def base(checkpoints) -> Checkpoint:
    return Checkpoint.open(checkpoints["llama"])


REFUSED = {
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "quantised or compressed"),
    "another architecture": ({"model_type": "mistral"}, "model_type is mistral, not llama"),
    "unknown architecture": ({"model_type": "mamba"}, "model_type is mamba, not llama"),
    "another epsilon": ({"rms_norm_eps": 1e-5}, "rms_norm_eps is 1e-05 in its config.json, and 1e-06 in the base's"),
    "another rotation": ({"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters is .*500000.0"),
    "more heads of the same width in all": (
        {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 24},
        "num_attention_heads is 2",
    ),
    "longer context": ({"max_position_embeddings": 65}, "max_position_embeddings is 65"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoint_that_computes_something_else_is_a_model_of_its_own(case, base, tmp_path):
    config, message = REFUSED[case]
    folder = edited_checkpoint(base.path, tmp_path / "theirs", **config)
    with pytest.raises(ValueError, match=message) as refused:
        Counterparts.open(base, folder)
    assert str(refused.value).startswith(str(folder))
    assert str(refused.value).endswith(f"it is no variant of {base.path} {OWN_MODEL}.")


def test_another_width_or_more_blocks_are_refused(base, tmp_path):
    wide = make_checkpoint(tmp_path / "wide", "llama", intermediate_size=80)
    with pytest.raises(ValueError, match=f"intermediate_size is 80 .*{OWN_MODEL}"):
        Counterparts.open(base, wide)
    deep = make_checkpoint(tmp_path / "deep", "llama", num_hidden_layers=5)
    with pytest.raises(ValueError, match=f"it has 5 blocks, the base 4: .*{OWN_MODEL}"):
        Counterparts.open(base, deep)


def test_another_dtype_is_refused_by_tensor_with_both_remedies(base, tmp_path):
    norm = "model.layers.2.input_layernorm.weight"
    theirs = edited_checkpoint(base.path, tmp_path / "theirs", lambda found: found | {norm: found[norm].bfloat16()})
    with pytest.raises(ValueError, match=f"{norm} is BF16, in the base F32; save it in the base's dtype.*`models:`"):
        Counterparts.open(base, theirs)
    theirs = edited_checkpoint(base.path, tmp_path / "head", lambda found: found | {HEAD: found[HEAD].bfloat16()})
    with pytest.raises(ValueError, match=f"{HEAD} is BF16, in the base F32"):
        Counterparts.open(base, theirs)


def test_bias_that_only_one_side_has_is_refused(base, tmp_path):
    bias = "model.layers.1.self_attn.q_proj.bias"
    theirs = edited_checkpoint(base.path, tmp_path / "theirs", lambda found: found | {bias: torch.ones(48)})
    with pytest.raises(ValueError, match=f"theirs: the base has no tensor {bias}: .*{OWN_MODEL}"):
        Counterparts.open(base, theirs)


def test_missing_and_damaged_folders_are_named_without_advice_that_would_not_help(base, tmp_path):
    with pytest.raises(ValueError, match=r"gone: no such folder"):
        Counterparts.open(base, tmp_path / "gone")
    theirs = edited_checkpoint(base.path, tmp_path / "theirs")
    (theirs / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated") as refused:
        Counterparts.open(base, theirs)
    assert "models:" not in str(refused.value)


@pytest.mark.parametrize("kind", SHAPES)
def test_configuration_of_another_version_of_transformers_says_the_same(checkpoints, tmp_path, kind):
    """Older ones have rope_theta and torch_dtype and leave out defaults; they neither name layer types nor heads."""
    config = json.loads((checkpoints[kind] / "config.json").read_text())
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "layer_types", "rms_norm_eps")}
    old |= {"rope_theta": config["rope_parameters"]["rope_theta"], "rope_scaling": None, "torch_dtype": "float32"}
    if kind != "qwen3":
        old.pop("head_dim", None)
    old["transformers_version"], old["attention_dropout"] = "4.40.0", 0.5
    assert computation(old) == computation(config)


def test_head_of_its_own_is_refused_where_the_base_ties_it(checkpoints, tmp_path):
    tied = Checkpoint.open(checkpoints["qwen2"])
    assert tied.tied
    assert HEAD not in tied.tensors
    embedding = load_file(tied.path / "model.safetensors")["model.embed_tokens.weight"]
    same = edited_checkpoint(
        tied.path, tmp_path / "same", lambda found: found | {HEAD: embedding}, tie_word_embeddings=False
    )
    assert HEAD not in Counterparts.open(tied, same).result_digests()
    own = edited_checkpoint(
        tied.path, tmp_path / "own", lambda found: found | {HEAD: embedding + 1}, tie_word_embeddings=False
    )
    with pytest.raises(ValueError, match=f"{HEAD} is not the embedding, to which the base ties it: .*{OWN_MODEL}"):
        Counterparts.open(tied, own)


@pytest.mark.parametrize("removed", range(4))
def test_removed_block_is_found_by_content(base, tmp_path, removed):
    folder = edited_checkpoint(base.path, tmp_path / "theirs", without_block(removed), num_hidden_layers=3)
    pair = Counterparts.open(base, folder)
    assert pair.kept_layers == tuple(layer for layer in range(4) if layer != removed)
    assert not any(map(pair.changed, base.tensors))


@given(
    st.integers(1, 4).flatmap(
        lambda rows: st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=rows, max_size=rows)
    )
)
def test_alignment_is_the_best_of_all(common):
    chosen = _align(common)
    values = {
        columns: sum(row[c] for row, c in zip(common, columns, strict=True))
        for columns in combinations(range(5), len(common))
    }
    assert values[chosen] == max(values.values())
