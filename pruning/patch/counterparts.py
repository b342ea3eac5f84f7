"""A checkpoint as a variant of a base: which of its tensors stands for which of the base's, and what rules that out.

Reads configurations, headers and digests only, so that a plan can refuse what no engine of the base could hold. A
checkpoint may have fewer blocks. Which of the base's it kept is found by content, and any answer would give the right
weights: what does not agree with its counterpart is stored in the patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pruning.model.architecture import EMBEDDING, HEAD, computation, layer_prefix, split_layer_name
from pruning.model.checkpoint import Checkpoint, read_object
from pruning.model.safetensors import TensorHeader

ROTARY = "self_attn.rotary_emb.inv_freq"
"""A buffer of old files, which every engine computes by itself: it may be missing on either side."""


@dataclass(frozen=True)
class Counterparts:
    """A base and a checkpoint that is a variant of it. Construct it with `Counterparts.open`."""

    base: Checkpoint
    checkpoint: Checkpoint

    @classmethod
    def open(cls, base: Checkpoint, folder: str | Path) -> Counterparts:
        """Read the checkpoint in `folder`, and digest its tensors where its output head has to be compared.

        Raises ValueError for a checkpoint that is damaged, or not of the base's architecture, shapes and dtypes.
        """
        path = Path(folder)
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; give a local Hugging Face checkpoint folder.")
        config = read_object(path / "config.json")
        if config.get("quantization_config"):
            raise _own_model(f"{path}: the checkpoint is quantised or compressed", base)
        if config.get("model_type") != base.config["model_type"]:
            raise _own_model(f"{path}: model_type is {config.get('model_type')}, not {base.config['model_type']}", base)
        checkpoint = Checkpoint.open(path)
        if difference := _difference(computation(base.config), computation(config)):
            raise _own_model(f"{path}: {difference}", base)
        if checkpoint.num_layers > base.num_layers:
            raise _own_model(f"{path}: it has {checkpoint.num_layers} blocks, the base {base.num_layers}", base)
        found = cls(base, checkpoint)
        found._check_tensors()
        found._check_head()
        return found

    def _check_tensors(self) -> None:
        """Raise ValueError unless every tensor has the name, shape and dtype of its counterpart."""
        base, theirs = _forms(self.base), _forms(self.checkpoint)
        same_number = self.base.num_layers == self.checkpoint.num_layers
        if not same_number and any(base[index] != base[0] for index in range(self.base.num_layers)):
            raise self._own_model("blocks are missing, and those of the base are not alike")
        for index, form in theirs.items():
            model = base[index if same_number or index is None else 0]
            prefix = "" if index is None else layer_prefix(index)
            for tail in sorted(form.keys() ^ model.keys()):
                raise self._own_model(f"{'the base' if tail in form else 'it'} has no tensor {prefix}{tail}")
            for tail, (dtype, shape) in form.items():
                if shape != model[tail].shape:
                    raise self._own_model(
                        f"{prefix}{tail} has shape {list(shape)}, in the base {list(model[tail].shape)}"
                    )
                if dtype != model[tail].dtype:
                    raise self._other_dtype(prefix + tail, dtype, model[tail].dtype)

    def _check_head(self) -> None:
        """Raise ValueError for an output head of its own where the base, or the checkpoint itself, has it tied."""
        source = self.checkpoint.tensors.get(HEAD, self.checkpoint.tensors[EMBEDDING])
        if HEAD in self.base.tensors and source.dtype != self.base.tensors[HEAD].dtype:
            raise self._other_dtype(HEAD, source.dtype, self.base.tensors[HEAD].dtype)
        if not (self.base.tied or self.checkpoint.tied) or HEAD not in self.checkpoint.tensors:
            return
        digests = self.checkpoint.tensor_digests()
        if digests[HEAD] != digests[EMBEDDING]:
            tied = "the base" if self.base.tied else "its own config.json"
            raise self._own_model(f"{HEAD} is not the embedding, to which {tied} ties it")

    def _own_model(self, why: str) -> ValueError:
        return _own_model(f"{self.checkpoint.path}: {why}", self.base)

    def _other_dtype(self, name: str, theirs: str, ours: str) -> ValueError:
        return ValueError(
            f"{self.checkpoint.path}: {name} is {theirs}, in the base {ours}; save it in the base's dtype, if that "
            "keeps its values, or list the checkpoint under `models:` of a grid instead."
        )

    @cached_property
    def kept_layers(self) -> tuple[int, ...]:
        """The base's blocks to which the checkpoint's correspond, ascending: all, or those with the most in common."""
        if self.checkpoint.num_layers == self.base.num_layers:
            return tuple(range(self.base.num_layers))
        return _align(
            [[self._common(i, j) for i in range(self.base.num_layers)] for j in range(self.checkpoint.num_layers)]
        )

    def _common(self, ours: int, theirs: int) -> int:
        """Number of weights in the tensors that are equal in two blocks."""
        mine, other = self.base.tensor_digests(), self.checkpoint.tensor_digests()
        pairs = [(layer_prefix(ours) + tail, layer_prefix(theirs) + tail) for tail in self.base.layer_tails(ours)]
        return sum(self.base.tensors[a].numel for a, b in pairs if mine[a] == other.get(b))

    @cached_property
    def sources(self) -> Mapping[str, TensorHeader]:
        """Tensor of the base, of those that stay -> the checkpoint's tensor whose content takes its place."""
        positions = {index: position for position, index in enumerate(self.kept_layers)}
        found = {}
        for name in self.base.tensors:
            layer = split_layer_name(name)
            if layer is None:
                source = EMBEDDING if name == HEAD and HEAD not in self.checkpoint.tensors else name
            elif layer[0] in positions:
                source = layer_prefix(positions[layer[0]]) + layer[1]
            else:
                continue
            if source in self.checkpoint.tensors:
                found[name] = self.checkpoint.tensors[source]
        return found

    def changed(self, name: str) -> bool:
        """Whether a tensor of the base that stays has another content in the checkpoint."""
        source = self.sources.get(name)
        return source is not None and self.checkpoint.tensor_digests()[source.name] != self.base.tensor_digests()[name]

    def result_digests(self) -> dict[str, str]:
        """The digest of every tensor of base + patch, by its name there, as a manifest has to promise it."""
        mine, theirs = self.base.tensor_digests(), self.checkpoint.tensor_digests()
        return {
            new: theirs[self.sources[old].name] if old in self.sources else mine[old]
            for new, old in self.base.names_after(self.kept_layers).items()
        }


class _Form(NamedTuple):
    """What a tensor and its counterpart must have in common, besides the name."""

    dtype: str
    shape: tuple[int, ...]


def _forms(checkpoint: Checkpoint) -> dict[int | None, dict[str, _Form]]:
    """Block, or None for what is outside -> the forms of its tensors, without those that may be missing.

    The head is left out: it is of the embedding's shape, and may be tied to it.
    """
    found: dict[int | None, dict[str, _Form]] = {}
    for name, header in checkpoint.tensors.items():
        index, tail = split_layer_name(name) or (None, name)
        if tail not in (ROTARY, HEAD):
            found.setdefault(index, {})[tail] = _Form(header.dtype, header.shape)
    return found


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first setting in which two computations differ; empty if they are the same."""
    names = [name for name in ours if ours[name] != theirs[name]]
    return f"{names[0]} is {theirs[names[0]]} in its config.json, and {ours[names[0]]} in the base's" if names else ""


def _own_model(why: str, base: Checkpoint) -> ValueError:
    return ValueError(
        f"{why}: it is no variant of {base.path} but a model of its own; list it under `models:` of a grid instead."
    )


def _align(common: list[list[int]]) -> tuple[int, ...]:
    """The ascending columns, one for each row, whose sum of `common` is largest; of equal ones the first."""
    rows, columns = len(common), len(common[0])
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for row in range(1, rows + 1):
        for column in range(row, columns + 1):
            taken = best[row - 1][column - 1] + common[row - 1][column - 1]
            best[row][column] = taken if column == row else max(taken, best[row][column - 1])
    chosen, column = [], columns
    for row in range(rows, 0, -1):
        while column > row and best[row][column] == best[row][column - 1]:
            column -= 1
        column -= 1
        chosen.append(column)
    return tuple(reversed(chosen))
