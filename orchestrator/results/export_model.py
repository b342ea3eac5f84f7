"""`python -m orchestrator export-model GRID.yaml VARIANT --to DIR`: a stored variant as a Hugging Face folder.

Base + patch as weights that any library loads, with the base's tokenizer and generation_config.json, and a model card.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.grid.errors import InputError
from orchestrator.plan.resolved_grid import ResolvedGrid, ResolvedVariant, find_variant
from orchestrator.results.cells import read_results
from orchestrator.results.model_card import CardFacts, model_card
from orchestrator.store.store import Store, StoreError
from pruning.files import move_into_place, unfinished_folder
from pruning.model.checkpoint import Checkpoint, content_digest
from pruning.patch.export import exported_config, write_model
from pruning.patch.patch import Patch
from pruning.spec import describe


@dataclass(frozen=True)
class _Chosen:
    """A patch of the store, and a variant of the grid that has its base: itself, if the grid has it."""

    patch_id: str
    of_base: ResolvedVariant
    in_grid: bool


def export_model(store: Store, resolved: ResolvedGrid, variant: str, destination: Path) -> str:
    """Write the stored variant called `variant` into the folder `destination`. Returns the folder's digest.

    `variant` is a label or patch id of the grid, or the id of any patch in the store whose base the grid names. The
    folder appears whole or not at all. Raises InputError for an unknown variant, or a destination that has content or
    cannot be written; StoreError for a variant without a patch, or with a damaged one.
    """
    chosen = _choose(store, resolved, variant)
    destination = destination.absolute()
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise InputError(f"--to {destination}: already has content; give a new or an empty folder")
    with unfinished_folder(Path(tempfile.gettempdir()), "prunesweep-export") as cache:
        folder = store.fetch_patch(chosen.patch_id, cache)
        base, patch = Checkpoint.open(chosen.of_base.model_path), _open(store, folder)
        digest = content_digest(patch.manifest.tensors, exported_config(base, patch))
        card = model_card(_facts(store, resolved, chosen, base, patch, digest))
        try:
            with unfinished_folder(destination.parent, destination.name) as working:
                write_model(base, patch, working)
                (working / "README.md").write_text(card, encoding="utf-8")
                move_into_place(working, destination)
        except OSError as error:
            raise InputError(f"--to {destination}: cannot be written: {error}; give a folder that can") from error
        except ValueError as error:  # the folder appeared meanwhile, or the base changed
            raise InputError(f"--to {destination}: {error}") from error
    return digest


def _choose(store: Store, resolved: ResolvedGrid, name: str) -> _Chosen:
    """The variant's patch, which is in the store. Raises InputError or StoreError."""
    stored = store.patch_ids()
    if name in stored and name not in {variant.patch_id for variant in resolved.variants}:
        with unfinished_folder(Path(tempfile.gettempdir()), "prunesweep-export") as cache:
            base = _open(store, store.fetch_patch(name, cache)).manifest.base
        for variant in resolved.variants:
            if variant.decodings[0].context.shape.digest == base:
                return _Chosen(name, variant, in_grid=False)
        raise InputError(
            f"VARIANT {name!r}: its base (digest {base[:12]}) is no model of {resolved.grid.source.name}; give a grid "
            "that lists it"
        )
    variant = find_variant(resolved, name, "VARIANT")
    if variant.patch_id not in stored:
        raise StoreError(
            f"store {store.uri} has no patch of {variant.full_label!r} of {resolved.grid.source.name}; run "
            f"`python -m orchestrator.sweep {resolved.grid.source.name}` first, or name another --store"
        )
    return _Chosen(variant.patch_id, variant, in_grid=True)


def _open(store: Store, folder: Path) -> Patch:
    try:
        return Patch.open(folder)
    except ValueError as error:
        raise StoreError(
            f"store {store.uri}: {error} Delete the folder patches/{folder.name} and run the sweep again"
        ) from error


def _facts(
    store: Store, resolved: ResolvedGrid, chosen: _Chosen, base: Checkpoint, patch: Patch, digest: str
) -> CardFacts:
    results = read_results(store, resolved)
    return CardFacts(
        label=chosen.of_base.label if chosen.in_grid else describe(patch.manifest.spec),
        model=chosen.of_base.decodings[0].context.shape.model,
        grid=resolved.grid,
        patch_id=chosen.patch_id,
        manifest=patch.manifest,
        base_blocks=base.num_layers,
        digest=digest,
        results=[
            (cell, results.against_dense.get((chosen.patch_id, cell.benchmark, cell.limit)))
            for cell in results.cells
            if cell.variant.patch_id == chosen.patch_id
        ],
    )
