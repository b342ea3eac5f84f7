"""Copies of checkpoints with changes, as their users make them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], Tensors]


def edited_checkpoint(checkpoint: Path, folder: Path, edit: Edit = lambda found: found, **config: object) -> Path:
    """A copy of a checkpoint of one file, with other tensors and settings. A setting of None is taken out."""
    shutil.copytree(checkpoint, folder)
    whole = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def without_block(index: int) -> Edit:
    """Takes a block out, and numbers those that follow anew."""

    def removed(tensors: Tensors) -> Tensors:
        kept = {}
        for name, tensor in tensors.items():
            parts = name.split(".")
            if parts[1] == "layers":
                number = int(parts[2])
                if number == index:
                    continue
                parts[2] = str(number - (number > index))
            kept[".".join(parts)] = tensor
        return kept

    return removed


def halved(tensors: Tensors) -> Tensors:
    """Half of the weights of each linear of a block, the smaller ones, are 0."""
    pruned = {name: tensor.masked_fill(tensor.abs() < tensor.abs().median(), 0) for name, tensor in tensors.items()}
    return {name: pruned[name] if "_proj.weight" in name else tensor for name, tensor in tensors.items()}
