"""Blocks run one at a time compute what the whole model does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pruning.model.blocks import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, Blocks, batches
from pruning.model.checkpoint import Checkpoint
from pruning.model.passes import embedded
from pruning.model.tensors import layer_tensors
from tests.pruning.conftest import SHAPES
from tests.support import reference as naive


@pytest.mark.parametrize("kind", SHAPES)
def test_streamed_blocks_equal_the_whole_model(checkpoints, windows_file, kind):
    base = Checkpoint.open(checkpoints[kind])
    windows = np.load(windows_file)
    model = naive.whole_model(checkpoints[kind])
    with torch.no_grad():
        states = model(torch.from_numpy(windows), output_hidden_states=True).hidden_states
    blocks = Blocks(base.config, torch.float32, "cpu")
    hidden = embedded(base, windows, torch.float32, "cpu")
    for layer in range(base.num_layers):
        torch.testing.assert_close(hidden, states[layer], atol=1e-5, rtol=1e-4)
        with blocks.resident(layer, layer_tensors(base, layer)) as block, torch.no_grad():
            hidden = blocks.forward(block, layer, hidden)
        assert all(parameter.is_meta for parameter in block.parameters())


@pytest.mark.parametrize(("device", "most"), [("cpu", CPU_BATCH_TOKENS), ("meta", GPU_BATCH_TOKENS)])
def test_batches_cover_every_window_once_and_are_as_large_as_the_device_likes(device, most):
    for windows, tokens in ((1, 1), (7, most), (129, 2048), (3, 10 * most), (50, most // 3)):
        parts = batches(torch.empty(windows, tokens, 1, device=device))
        assert [index for part in parts for index in range(windows)[part]] == list(range(windows))
        for part in parts:
            count = part.stop - part.start
            assert count == 1 or count * tokens <= most
            assert part is parts[-1] or (count + 1) * tokens > most
