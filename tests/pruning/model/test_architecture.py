"""What a block's linears are, and the configuration after blocks were removed."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from pruning.model.architecture import LINEARS, config_after_removal, config_of_length
from pruning.model.checkpoint import Checkpoint
from tests.pruning.conftest import SHAPES
from tests.support import reference as naive


@pytest.mark.parametrize("kind", SHAPES)
def test_the_prunable_linears_are_all_the_linears_of_a_block(checkpoints, kind):
    block = naive.whole_model(checkpoints[kind]).model.layers[0]
    found = {name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    assert found == set(LINEARS)


@pytest.mark.parametrize("kind", SHAPES)
def test_configuration_for_so_many_blocks_is_that_of_every_patch_which_keeps_so_many(checkpoints, kind):
    config = Checkpoint.open(checkpoints[kind]).config
    assert config_of_length(config, 4) == config
    if kind == "qwen2":  # its first two blocks see everything, the others a window
        with pytest.raises(ValueError, match=r"differ \(full_attention, sliding_attention\).*3 of 4 blocks"):
            config_of_length(config, 3)
        return
    for kept in combinations(range(4), 3):
        assert config_of_length(config, 3) == config_after_removal(config, kept)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("unnamed", [{}, {"architectures": None}])
def test_configuration_without_the_model_class_is_given_the_one_that_transformers_would_take(
    checkpoints, kind, unnamed
):
    config = Checkpoint.open(checkpoints[kind]).config
    rest = {key: value for key, value in config.items() if key != "architectures"}
    named = config_of_length({**rest, **unnamed}, 4)["architectures"]
    assert named == [type(naive.whole_model(checkpoints[kind])).__name__]
