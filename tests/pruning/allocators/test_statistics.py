"""What several jobs need is computed once."""

from __future__ import annotations

from pruning.allocators.statistics import gather
from pruning.model.checkpoint import Checkpoint
from pruning.resolve import resolve
from pruning.spec import PruneSpec


def test_jobs_share_one_pass_per_calibration_and_one_over_the_weights(checkpoints, calibration):
    base = Checkpoint.open(checkpoints["llama"])
    specs = [
        PruneSpec("magnitude", "owl", 0.2, calibration=calibration),
        PruneSpec("wanda", "owl", 0.3, owl_m=3.0, calibration=calibration),
        PruneSpec("shortgpt", blocks=1, calibration=calibration),
        PruneSpec("magnitude", "alphapruning", 0.2, alpha_fit="median"),
        PruneSpec("magnitude", "alphapruning", 0.4, alpha_fit="median"),
        PruneSpec("magnitude", sparsity=0.2),
    ]
    said: list[str] = []
    found = gather(base, [resolve(spec) for spec in specs], device="cpu", progress=said.append)
    layers = [f"layer {layer}/4" for layer in range(1, 5)]
    assert said == [f"{title}: {text}" for title in ("dense statistics", "weight statistics") for text in layers]
    assert [list(one.layers) for one in found] == [["outliers"]] * 2 + [["block_influence"]] + [["alpha"]] * 2 + [[]]
    assert found[0].layers["outliers"] != found[1].layers["outliers"]
    assert found[3].layers == found[4].layers
    assert [set(one.windows) for one in found] == [{"calibration"}] * 3 + [set()] * 3
