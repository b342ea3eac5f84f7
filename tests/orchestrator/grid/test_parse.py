"""grid.yaml as values."""

from dataclasses import replace
from pathlib import Path

from eval.spec import BenchmarkSpec
from orchestrator.grid.parse import read_grid
from tests.support import ROOT
from tests.support.grids import edited


def test_the_grid_of_the_readme_can_be_read(tmp_path: Path) -> None:
    grid = tmp_path / "first.yaml"
    grid.write_text((ROOT / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0], "utf-8")
    assert [variant.spec.method for variant in read_grid(grid).variants] == ["dense", "wanda", "wanda"]


def test_anchors_comments_and_single_values_are_read(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        edited(
            ("  - {method: [magnitude, wanda], allocator: [uniform], sparsity: [0.2, 0.5]}",
             "  - &one {method: magnitude, sparsity: 0.2}  # a comment\n  - {<<: *one, sparsity: 0.5}"),
        ),
        encoding="utf-8",
    )  # fmt: skip
    read = read_grid(grid)
    assert [(v.spec.method, v.spec.sparsity) for v in read.variants] == [
        ("dense", None), ("magnitude", 0.2), ("magnitude", 0.5),
    ]  # fmt: skip


def test_hints_name_the_store_if_it_is_not_the_grids_own(tmp_path: Path) -> None:
    grid = tmp_path / "my grid.yaml"
    grid.write_text(edited(), encoding="utf-8")
    read = read_grid(grid)
    assert read.command("sync") == f"python -m orchestrator sync '{grid}'"
    elsewhere = replace(read, store="s3://bucket/two words")
    assert elsewhere.command("sync") == f"python -m orchestrator sync '{grid}' --store 's3://bucket/two words'"


def test_benchmarks_are_names_or_parts_of_them(tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    mixed = "examples/tiny/chain-mixed.jsonl"
    part = f"{{name: {mixed}, sample: 5, columns: {{id: idx}}}}"
    grid.write_text(edited((mixed, f"{mixed}\n  - {{name: {mixed}, first: 5}}\n  - {part}")), encoding="utf-8")
    assert read_grid(grid).benchmarks[:3] == (
        BenchmarkSpec(mixed),
        BenchmarkSpec(mixed, first=5),
        BenchmarkSpec(mixed, sample=5, columns=(("id", "idx"),)),
    )
