"""Methods and allocators of installed packages, with real ones: modules, metadata and entry points in a folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pruning.methods import METHODS
from pruning.methods.method import Method
from pruning.patch.patch import Patch
from pruning.plugins import Table
from pruning.resolve import packages
from pruning.spec import PruneSpec
from tests.support import ROOT
from tests.support.builders import TinySweep
from workers.failure import FailureKind
from workers.messages import PatchRequest
from workers.sources import SourceFault, check_sources

MODEL = ROOT / "examples" / "tiny" / "model"
MODULE = """
from pruning.allocators.allocator import Allocator
from pruning.methods.method import Method

SIZE = Method("size", score=lambda weight, norms, spec: weight.float().abs())
EVEN = Allocator("even", lambda spec, sizes, statistics: [
    {part: spec.sparsity for part in sizes} for _ in next(iter(sizes.values()))
])
"""


def install(site: Path, module: str = MODULE, version: str = "1.2", **points: str) -> Path:
    """Put a package `ownmethods` into `site` as pip leaves it. `points`: entry points of methods, by name."""
    site.mkdir(exist_ok=True)
    (site / "ownmethods.py").write_text(module)
    info = site / f"ownmethods-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ownmethods\nVersion: {version}\n")
    methods = "".join(f"{name} = {value}\n" for name, value in (points or {"size": "ownmethods:SIZE"}).items())
    (info / "entry_points.txt").write_text(
        f"[prunesweep.methods]\n{methods}\n[prunesweep.allocators]\neven = ownmethods:EVEN\n"
    )
    return site


def run(site: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site)}
    words = [sys.executable, "-m", *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_installed_method_prunes_as_one_of_ours_does(tmp_path: Path) -> None:
    site = install(tmp_path / "site")
    for method, allocator in (("size", "even"), ("magnitude", "uniform")):
        options = ["--method", method, "--allocator", allocator, "--sparsity", "0.5", "--patch", tmp_path / method]
        done = run(site, "pruning", MODEL, *options)
        assert done.returncode == 0, done.stderr
    theirs, ours = (Patch.open(tmp_path / name).manifest.tensors for name in ("size", "magnitude"))
    assert theirs == ours


def test_version_of_the_package_is_part_of_the_name(sweep: TinySweep, tmp_path: Path) -> None:
    names = set()
    for version in ("1.2", "1.3"):
        site = install(tmp_path / version, version=version)
        sweep.variants = [{"method": "size", "allocator": "even", "sparsity": 0.5}]
        script = (
            "import sys; from pathlib import Path; from orchestrator.grid.parse import read_grid;"
            "from orchestrator.plan.resolve import resolve_grid;"
            "v = resolve_grid(read_grid(Path(sys.argv[1]))).variants[0];"
            "print(v.patch_id, v.patch_payload['packages'])"
        )
        environment = os.environ | {"PYTHONPATH": str(site)}
        command = [sys.executable, "-c", script, str(sweep.write_grid())]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
        name, _, packages_text = done.stdout.partition(" ")
        assert packages_text.strip() == str({"method": f"ownmethods {version}", "allocator": f"ownmethods {version}"})
        names.add(name)
    assert len(names) == 2


@pytest.mark.parametrize(
    ("module", "points", "complaint"),
    [
        ("import nothing_of_that_name", {}, "ownmethods 1.2 cannot be loaded (ownmethods:SIZE: ModuleNotFoundError"),
        (MODULE, {"size": "ownmethods:EVEN"}, "ownmethods:EVEN of ownmethods 1.2 is not a Method of that name"),
        (MODULE, {"wanda": "ownmethods:SIZE"}, "method 'wanda': ownmethods 1.2 registers it, too; uninstall that"),
    ],
)
def test_package_that_cannot_be_used_is_named_and_others_work(
    sweep: TinySweep, tmp_path: Path, module: str, points: dict[str, str], complaint: str
) -> None:
    site = install(tmp_path / "site", module, **points)
    calibration = {"data": str(MODEL.parent / "calibration.jsonl"), "samples": 4, "tokens": 32}
    sweep.variants = [{"method": next(iter(points), "size"), "sparsity": 0.5, "calibration": calibration}]
    refused = run(site, "orchestrator", "plan", sweep.write_grid())
    assert refused.returncode == 2
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr
    sweep.variants = [{"method": "magnitude", "sparsity": 0.5}]
    assert run(site, "orchestrator", "plan", sweep.write_grid()).returncode == 0


def test_unknown_name_lists_the_installed_ones(sweep: TinySweep, tmp_path: Path) -> None:
    sweep.variants = [{"method": "sizes", "sparsity": 0.5}]
    refused = run(install(tmp_path / "site"), "orchestrator", "plan", sweep.write_grid())
    assert "Did you mean 'size'?" in refused.stderr


def test_machine_without_the_package_is_at_fault(sweep: TinySweep) -> None:
    sweep.variants = [{"method": "magnitude", "sparsity": 0.5}]
    variant = sweep.resolve_grid().variants[0]
    payload = variant.patch_payload | {"packages": {"method": "ownmethods 1.2"}}
    request = PatchRequest(variant.patch_id, variant.spec, payload)
    with pytest.raises(SourceFault, match=r"is of ownmethods 1\.2 at the driver, and this machine has no") as fault:
        check_sources(str(MODEL), request)
    assert fault.value.kind is FailureKind.DATA


def test_names_of_our_own_are_of_no_package() -> None:
    assert packages(PruneSpec("magnitude", sparsity=0.5)) == {}
    table = Table("method", "prunesweep.none", Method, METHODS.built_in)
    assert list(table) == list(METHODS.built_in)
    with pytest.raises(KeyError):
        table["none"]
