"""Proof that an engine's parameters are a variant's tensors, on each rank: promise proof-before-sample.

An engine fuses tensors (q, k, v become one matrix), splits them over tensor-parallel ranks, pads vocabularies, and on a
CPU repacks matrices into an opaque layout and frees the original. Therefore:

- `ParameterDigests` digests each parameter in the engine's memory: just before its layer repacks it, if it does, else
  after everything is loaded;
- `VerifiedStream` gives the expected digest: the manifest's, or, where a rank keeps only a slice of the tensor or in
  another dtype, the digest of that slice, taken from a streamed tensor whose whole digest is the manifest's;
- `ParameterDigests.mismatches` names every tensor whose two digests differ.

A tensor that lies whole in the engine is thus digested once, and this digest proves file, decoding and placement
together. It is digested where it lies, by the tree digest (pruning/model/tree_digest.py): on a device by the thread
that loads, behind the copies on its stream, so that only 1/512 of the bytes comes to the host; in host memory beside
the loading, in the threads of `DigestPool`, without the GIL.

No vllm here: modules are recognised by the attributes that vLLM's layers carry.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from pruning.model.architecture import layer_prefix, split_layer_name
from pruning.model.checkpoint import Checkpoint
from pruning.model.tree_digest import tree_digest
from pruning.patch.manifest import Manifest
from pruning.patch.patch import Patch, digest_tensor

Digest = Callable[[torch.Tensor], str]


@dataclass(frozen=True)
class Promise:
    """A digest of each of the variant's tensors, by name, and the function that computes it."""

    digests: Mapping[str, str]
    digest: Digest

    @classmethod
    def of(cls, manifest: Manifest) -> "Promise":
        """The manifest's tree digests; its SHA-256 where an earlier version made it, which recorded no others."""
        return cls(manifest.trees, tree_digest) if manifest.trees else cls(manifest.tensors, digest_tensor)


class DigestPool:
    """Threads that digest tensors while loading goes on. Pending tensors stay in memory, so their number is bounded."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="digest")
        self._room = threading.Semaphore(4 * threads)

    def take(self, digest: Digest, tensor: torch.Tensor) -> Future[str]:
        """Schedule `digest(tensor)` on the pool; blocks while the pool is full.

        On a device it is computed at once: another thread's stream would not wait for the copies on this one's.
        """
        if tensor.device.type != "cpu":
            done = Future[str]()
            done.set_result(digest(tensor))
            return done
        self._room.acquire()
        future = self._pool.submit(digest, tensor)
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        self._pool.shutdown()


class VerifiedStream:
    """The variant's tensors on their way into the engine, each compared with what the manifest promises.

    `slices` gives the part of a source tensor that this rank keeps: (dimension, start, length), by the tensor's name.
    A tensor that is not in it is kept whole.
    """

    def __init__(
        self,
        tensors: Iterable[tuple[str, torch.Tensor]],
        promise: Promise,
        slices: Mapping[str, tuple[int, int, int]],
        dtype: torch.dtype,
        digests: DigestPool,
    ) -> None:
        self._tensors, self._promise, self._slices, self._dtype = tensors, promise, slices, dtype
        self._digests = digests
        self._streamed: set[str] = set()
        self._parts: dict[str, Future[str]] = {}

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._tensors:
            if name in self._slices or tensor.dtype != self._dtype:
                self._parts[name] = self._digests.take(partial(self._part, name), tensor)
            self._streamed.add(name)
            yield name, tensor

    def _part(self, name: str, tensor: torch.Tensor) -> str:
        if self._promise.digests.get(name) != self._promise.digest(tensor):
            raise ValueError(f"tensor {name} differs from the patch's manifest; make the patch anew")
        dimension, start, length = self._slices.get(name, (0, 0, tensor.shape[0]))
        return self._promise.digest(tensor.narrow(dimension, start, length).to(self._dtype).contiguous())

    def expected(self) -> dict[str, str]:
        """Tensor name -> digest of what this rank must hold of it. Call it when the stream has ended.

        Raises ValueError for a streamed tensor that differs from the manifest.
        """
        promised = self._promise.digests
        whole = {name: promised[name] for name in self._streamed & promised.keys() - self._parts.keys()}
        return whole | {name: part.result() for name, part in self._parts.items()}

    def missing(self) -> list[str]:
        """Tensors of the manifest that the stream did not contain."""
        return sorted(set(self._promise.digests) - self._streamed)


@dataclass(frozen=True)
class SourceSlice:
    """The part of an engine parameter that came from one source tensor: rows [start, start + length) of it."""

    source: str
    start: int
    length: int
    slice: tuple[int, int, int] | None
    """What the rank keeps of the source tensor, as in `VerifiedStream`; None for all of it."""


@dataclass(frozen=True)
class Layout:
    """Which source tensors each engine parameter is made of, on this rank."""

    pieces: Mapping[str, tuple[SourceSlice, ...]]
    """Parameter name -> its slices of source tensors, in row order."""
    slices: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def needed(self) -> set[str]:
        """The names of the source tensors that the engine needs."""
        return {piece.source for pieces in self.pieces.values() for piece in pieces}

    def mismatch(self, have: set[str]) -> str:
        """How the names of a variant's tensors differ from those that the engine needs; empty if they do not."""
        needed = self.needed()
        # A tied checkpoint may store its output head a second time; the engine ignores it.
        if surplus := sorted(have - needed - {"lm_head.weight"}):
            return f"the variant has {len(surplus)} tensors that the engine lacks, among them {surplus[0]}"
        if missing := sorted(needed - have):
            return f"the variant lacks {len(missing)} tensors that the engine needs, among them {missing[0]}"
        return ""


def shapes(base: Checkpoint, patch: Patch) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of base + patch, named as in an exported checkpoint."""
    positions = {index: position for position, index in enumerate(patch.manifest.kept_layers)}
    found: dict[str, tuple[int, ...]] = {}
    for name, header in base.tensors.items():
        layer = split_layer_name(name)
        if layer is None:
            found[name] = tuple(header.shape)
        elif layer[0] in positions:
            found[layer_prefix(positions[layer[0]]) + layer[1]] = tuple(header.shape)
    return found


def layout(model: torch.nn.Module, sources: Mapping[str, tuple[int, ...]], rank: int) -> Layout:
    """The layout of a vLLM model: fused layers from its `packed_modules_mapping`, slices from its layers' attributes.

    `sources` gives each source tensor's full shape, see `shapes`. Raises ValueError for a parameter without a source.
    """
    packed: Mapping[str, list[str]] = getattr(model, "packed_modules_mapping", None) or {}
    pieces: dict[str, tuple[SourceSlice, ...]] = {}
    distinct = {name for name, _ in model.named_parameters()}  # lists a tied output head once, as its embedding
    for module_name, module in model.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            name = f"{module_name}.{leaf}" if module_name else leaf
            if name not in distinct:
                continue
            parent, _, own = module_name.rpartition(".")
            parts = packed.get(own, [own])
            names = [".".join(filter(None, (parent, part, leaf))) for part in parts]
            pieces[name] = tuple(_pieces(name, names, module, sources, rank))
    slices = {p.source: p.slice for parts in pieces.values() for p in parts if p.slice is not None}
    return Layout(pieces, slices)


def _pieces(
    name: str, names: list[str], module: Any, sources: Mapping[str, tuple[int, ...]], rank: int
) -> Iterator[SourceSlice]:
    start = 0
    for index, source in enumerate(names):
        if source not in sources:
            raise ValueError(f"engine parameter {name} needs tensor {source}, which the checkpoint does not have")
        shape = sources[source]
        kept = _slice(module, index, len(shape), rank)
        rows = kept[2] if kept is not None and kept[0] == 0 else shape[0]
        yield SourceSlice(source, start, rows, kept if kept is None or shape[kept[0]] != kept[2] else None)
        start += rows


def _slice(module: Any, index: int, dimensions: int, rank: int) -> tuple[int, int, int] | None:
    """(dimension, start, length) of what `module` keeps of the source tensor on this rank; None for all of it."""
    shards = getattr(module, "shard_indices", None)
    if shards is not None:  # a vocabulary, split by rows and padded
        return (0, shards.org_vocab_start_index, shards.num_org_elements)
    if getattr(module, "tp_size", 1) == 1:
        return None
    if getattr(module, "input_size_per_partition", None) != getattr(module, "input_size", None):
        length = module.input_size_per_partition
        return (1, rank * length, length) if dimensions > 1 else None
    if not hasattr(module, "output_partition_sizes"):
        return None
    length = module.output_partition_sizes[index]
    # If there are more ranks than key-value heads, neighbouring ranks hold the same head.
    replicas = getattr(module, "num_kv_head_replicas", 1) if index > 0 and hasattr(module, "num_kv_heads") else 1
    return (0, (rank // replicas) * length, length)


class ParameterDigests:
    """Digests of one rank's parameters, by source tensor."""

    def __init__(self, model: torch.nn.Module, plan: Layout, digest: Digest, digests: DigestPool) -> None:
        self._model, self._plan, self._digest, self._digests = model, plan, digest, digests
        self._seen: dict[str, Future[str]] = {}

    def _observe(self, name: str, parameter: torch.Tensor) -> None:
        for piece in self._plan.pieces.get(name, ()):
            if parameter.shape[0] >= piece.start + piece.length:
                rows = parameter.detach().narrow(0, piece.start, piece.length)
                self._seen[piece.source] = self._digests.take(self._digest, rows)

    @contextmanager
    def observing(self) -> Iterator[None]:
        """While weights load, digest each parameter that its layer repacks, with its content just before.

        A layer repacks in its quantisation method's `process_weights_after_loading`, which may empty the parameter.
        """
        wrapped: list[Any] = []
        for name, module in self._model.named_modules():
            method: Any = getattr(module, "quant_method", None)
            if hasattr(method, "process_weights_after_loading"):
                method.process_weights_after_loading = self._observing_repack(
                    method.process_weights_after_loading, name
                )
                wrapped.append(method)
        try:
            yield
        finally:
            for method in wrapped:
                vars(method).pop("process_weights_after_loading", None)

    def _observing_repack(self, original: Callable[[Any], None], module_name: str) -> Callable[[Any], None]:
        def repack_observed(layer: Any) -> None:
            # A second reference keeps the storage if the layer drops it. If the layer rewrote it in place instead,
            # `mismatches` would find other bytes at the end.
            before = {
                leaf: parameter.detach()
                for leaf, parameter in layer.named_parameters(recurse=False)
                if not parameter.is_meta and parameter.numel()
            }
            original(layer)
            for leaf, parameter in before.items():
                now = getattr(layer, leaf, None)
                if now is None or not now.numel() or now.data_ptr() != parameter.data_ptr():
                    self._observe(f"{module_name}.{leaf}", parameter)

        return repack_observed

    def mismatches(self, expected: Mapping[str, str]) -> list[str]:
        """The names of source tensors that are not proved to be in place, sorted; empty if this rank is proved."""
        for name, parameter in self._model.named_parameters():
            if parameter.numel():
                self._observe(name, parameter)
        seen = {source: digest.result() for source, digest in self._seen.items()}
        return sorted(name for name in self._plan.needed() if name not in seen or seen[name] != expected.get(name))
