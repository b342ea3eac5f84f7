"""The model card: what it says of a variant, and what it keeps to itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orchestrator.results.cells import read_results
from orchestrator.results.model_card import CardFacts, model_card
from pruning.model.architecture import LINEARS
from pruning.patch.manifest import read_manifest
from tests.support.builders import TINY, TinySweep
from tests.support.checkpoints import edited_checkpoint, halved

CALIBRATION = {"data": str(TINY / "calibration.jsonl"), "samples": 8, "tokens": 96}
VARIANTS = {
    "wanda": {"method": "wanda", "sparsity": 0.5, "calibration": CALIBRATION},
    "shortgpt": {"method": "shortgpt", "blocks": 1, "calibration": CALIBRATION},
}


def facts_of(sweep: TinySweep, number: int = 1) -> CardFacts:
    """The facts of a variant of a sweep that was run."""
    resolved = sweep.resolve_grid()
    variant, results = resolved.variants[number], read_results(sweep.store, resolved)
    return CardFacts(
        label=variant.label,
        model=variant.decodings[0].context.shape.model,
        grid=resolved.grid,
        patch_id=variant.patch_id,
        manifest=read_manifest(sweep.store.fetch_patch(variant.patch_id, sweep.folder / "cache")),
        base_blocks=4,
        digest="d" * 64,
        results=[
            (cell, results.against_dense.get((variant.patch_id, cell.benchmark, cell.limit)))
            for cell in results.cells
            if cell.variant.patch_id == variant.patch_id
        ],
    )


def front_matter(card: str) -> dict[str, object]:
    head, _, _ = card.removeprefix("---\n").partition("\n---\n")
    return dict(yaml.safe_load(head))


def rows(card: str, section: str) -> list[list[str]]:
    """The cells of a section's table, without its heading."""
    text = card.split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


@pytest.fixture
def wanda(sweep: TinySweep) -> CardFacts:
    sweep.variants.append(VARIANTS["wanda"])
    assert sweep.run() == "done"
    return facts_of(sweep)


def test_card_says_method_calibration_sparsity_results_and_digests(wanda: CardFacts) -> None:
    card, manifest = model_card(wanda), wanda.manifest
    assert ["sparsity", "`0.5`"] in rows(card, "Method")
    ((_, source, settings, digest),) = rows(card, "Calibration")
    assert (source, digest) == ("`calibration.jsonl`", f"`{manifest.calibration['calibration']}`")
    assert "samples 8, tokens 96" in settings
    for layer, row in zip(manifest.layers, rows(card, "Sparsity"), strict=True):
        assert row[:4] == [str(layer.index)] * 2 + [f"{layer.requested:.4f}", f"{layer.realised:.4f}"]
        assert row[4:] == [f"{layer.modules[linear]:.4f}" for linear in LINEARS]
    (cell, against), row = wanda.results[1], rows(card, "Results")[1]
    assert against is not None
    interval, difference = cell.metrics.interval, against.comparison
    assert interval is not None
    assert row[:3] == ["first", "32", f"{cell.metrics.accuracy:.3f} [{interval.low:.3f}, {interval.high:.3f}]"]
    assert row[3].startswith(f"{difference.difference:+.3f} [{difference.interval.low:+.3f}, ")
    shown = {name: value.strip("`") for name, value in rows(card, "Digests")}
    assert set(shown.values()) == {"d" * 64, manifest.weights_digest, manifest.base, wanda.patch_id}


def test_card_names_a_hub_base_with_its_commit_and_no_folder_of_this_machine(wanda: CardFacts, tmp_path: Path) -> None:
    local, hub = model_card(wanda), model_card(replace(wanda, model="org/base@c0ffee"))
    assert "base_model" not in front_matter(local)
    assert front_matter(hub)["base_model"] == "org/base"
    assert "`org/base` at commit `c0ffee`" in hub
    for folder in (tmp_path, TINY):
        assert str(folder) not in local + hub


def test_card_says_which_blocks_are_gone(sweep: TinySweep) -> None:
    sweep.variants.append(VARIANTS["shortgpt"])
    assert sweep.run() == "done"
    facts = facts_of(sweep)
    (removed,) = set(range(4)) - set(facts.manifest.kept_layers)
    assert f"1 of 4 blocks are removed; as the base numbers them: {removed}." in model_card(facts)


def test_card_of_a_checkpoint_claims_no_method_and_asked_for_nothing(sweep: TinySweep) -> None:
    mine = edited_checkpoint(sweep.model, sweep.folder / "mine", halved)
    sweep.variants.append({"method": "checkpoint", "path": str(mine), "label": "half"})
    assert sweep.run() == "done"
    card = model_card(facts_of(sweep))
    assert front_matter(card)["tags"] == ["prunesweep", "pruned"]
    assert ["label", "`half`"] in rows(card, "Method")
    assert str(sweep.folder) not in card
    assert "were asked" not in card


def test_card_of_the_dense_model_and_of_one_without_results(sweep: TinySweep) -> None:
    assert sweep.run() == "done"
    facts = facts_of(sweep, 0)
    card = model_card(facts)
    assert "Its weights are those of the base." in card
    assert "pruned" not in front_matter(card)["tags"]
    bare = model_card(replace(facts, results=[]))
    assert "model-index" not in front_matter(bare)
    assert "This grid does not evaluate the variant." in bare
