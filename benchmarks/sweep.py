"""The demo grid by this system against the straightforward loop: a fresh vLLM engine per variant and limit.

    python -m benchmarks.sweep [--limits 8,128]

One run on this machine. The loop's time counts from each process's start to its end, and the export of its checkpoints
(their pruning is given to it for nothing); ours is the whole command `python -m orchestrator.sweep`, pruning, Ray,
MLflow and table included. `--limits` runs the loop on fewer limits and scales nothing: it is for trying the script.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc

from eval.modes import MODES
from orchestrator.grid.parse import read_grid
from orchestrator.plan.resolve import resolve_grid
from orchestrator.results.cells import read_results
from orchestrator.store.store import Store, load_draws
from pruning.patch.export import export

ROOT = Path(__file__).parent.parent
GRID = ROOT / "examples" / "tiny" / "grid.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", default="", help="run the loop on these limits only")
    options = parser.parse_args()
    grid = read_grid(GRID)
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch, "store")
        began = time.monotonic()
        command = [sys.executable, "-m", "orchestrator.sweep", str(GRID), "--store", str(store)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ours = time.monotonic() - began
        resolved = resolve_grid(grid)
        opened = Store.open(str(store))
        results = read_results(opened, resolved)
        draws = load_draws(opened, ["trace_tokens", "answers.answer_tokens"])
        our_tokens = pc.sum(draws["trace_tokens"]).as_py()
        if MODES[grid.budget.mode].answer_phase:  # or answers are parts of the traces
            our_tokens += sum(answer["answer_tokens"] for answer in pc.list_flatten(draws["answers"]).to_pylist())
        cells = {(c.variant.patch_id, c.benchmark, c.limit): c.metrics.accuracy for c in results.cells}

        limits = [int(x) for x in options.limits.split(",")] if options.limits else list(grid.token_limits)
        loop = loop_tokens = 0.0
        differences: list[float] = []
        for variant in resolved.variants:
            checkpoint = Path(scratch, variant.patch_id)
            began = time.monotonic()
            export(variant.model_path, opened.fetch_patch(variant.patch_id, Path(scratch)), checkpoint)
            loop += time.monotonic() - began
            for limit in limits:
                began = time.monotonic()
                done = subprocess.run(
                    [sys.executable, "-m", "benchmarks.baselines.straightforward", str(checkpoint), str(limit),
                     str(grid.budget.answer_tokens), *grid.benchmarks],
                    cwd=ROOT, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                )  # fmt: skip
                loop += time.monotonic() - began
                told = json.loads(done.stdout.splitlines()[-1])
                loop_tokens += told["tokens"]
                for name, accuracy in told["accuracy"].items():
                    differences.append(accuracy - (cells[(variant.patch_id, name, limit)] or 0.0))
                print(f"{variant.label} @ {limit}: {told['seconds']:.1f} s", file=sys.stderr)
    print(f"{'':<26}{'seconds':>10}{'tokens':>12}")
    print(f"{'this system':<26}{ours:>10.1f}{our_tokens:>12,}")
    print(f"{'the straightforward loop':<26}{loop:>10.1f}{int(loop_tokens):>12,}")
    print(f"{'ratio':<26}{loop / ours:>10.2f}{loop_tokens / our_tokens:>12.2f}")
    same = sum(d == 0 for d in differences)
    print(f"accuracies: {same} of {len(differences)} equal, largest difference {max(map(abs, differences)):.3f}")


if __name__ == "__main__":
    main()
