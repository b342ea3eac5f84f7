"""Whether the orchestrator is ever the bottleneck: planning, the core's pace, a fleet of 1,000 engines, memory.

    python -m benchmarks.scale

Planning: 10,000 cells (2,000 variants x 5 token limits of the tiny model) on 4 benchmarks, in an empty store, by the
command itself; beside the clock's time stands the processor's, which other work on the machine does not stretch. The
core: commits reported by 1,000 busy engines of the paper's grid, one event at a time. The fleet: see
benchmarks/fleet.py. Memory: what a core holds for ten and for a thousand times as many draws.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import yaml

from benchmarks.fleet import Speeds, VirtualFleet, lengths, lower_bound, paper_core
from eval.spec import BudgetSpec, SamplingSpec
from orchestrator.scheduler.core import Core
from orchestrator.scheduler.events import Assign, Reported, ShardNumbers, StartWorker, Tick, WorkerReady
from orchestrator.scheduler.work import ContextWork, LengthEstimator, PatchState, PatchWork, Policy
from pruning.spec import PruneSpec
from workers.messages import Committed, Context, Heartbeat, PatchRequest, Shape, WorkerInfo

ROOT = Path(__file__).parent.parent
TINY = ROOT / "examples" / "tiny"


def plan() -> None:
    """10,000 cells through `python -m orchestrator plan`."""
    with tempfile.TemporaryDirectory() as folder:
        grid = {
            "name": "scale", "store": f"{folder}/store", "models": [str(TINY / "model")],
            "variants": [
                {"method": "dense"},
                {"method": "magnitude", "sparsity": [round(0.0004 * n, 6) for n in range(1, 2000)]},
            ],
            "token_limits": [8, 16, 32, 64, 128],
            "benchmarks": [str(TINY / f"chain-{name}.jsonl") for name in ("mixed", "short", "long", "plus")],
            "sampling": {"temperature": 1.0, "seeds": [7, 11, 42]},
            "budget": {"mode": "native-strict", "answer_tokens": 16},
        }  # fmt: skip
        file = Path(folder, "grid.yaml")
        file.write_text(yaml.safe_dump(grid))
        began = time.monotonic()
        command = [sys.executable, "-m", "orchestrator", "plan", str(file), "--json"]
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(out)
    print(
        f"plan: {told['cells']:,} cells, {told['draws']['owed']:,} draws on 4 benchmarks in {seconds:.1f} s, "
        f"{used.ru_utime + used.ru_stime:.1f} s of processor"
    )


def pace() -> None:
    """Events per second that the core handles, with 1,000 engines at work."""
    core = paper_core(1000, made=True)
    now = 1.0
    busy: list[tuple[str, ShardNumbers]] = []
    todo = core.handle(Tick(), now)
    while todo:
        events = [WorkerReady(c.worker, WorkerInfo(c.worker, "host", 1)) for c in todo if isinstance(c, StartWorker)]
        busy += [(c.worker, c.task) for c in todo if isinstance(c, Assign) and isinstance(c.task, ShardNumbers)]
        todo = [command for event in events for command in core.handle(event, now)]
    events = [
        event
        for number in range(20)
        for worker, one in busy
        for event in (
            Reported(worker, Committed(one.task_id, one.numbers[number : number + 1], (900,), 900, 90, 0, 0)),
            Reported(worker, Heartbeat(one.task_id, 1000 * number)),
        )
        if number < len(one.numbers)
    ]
    began = time.perf_counter()
    for index, event in enumerate(events):
        core.handle(event, now + index * 1e-3)
    seconds = time.perf_counter() - began
    print(f"core: {len(events):,} reports of {len(busy):,} busy engines, {len(events) / seconds:,.0f} events/s")


def fleet() -> None:
    """The paper's grid on 1,000 engines."""
    began = time.monotonic()
    outcome = VirtualFleet(paper_core(1000), Speeds(), lengths()).run()
    bound, why = lower_bound(1000, Speeds(), lengths())
    print(
        f"fleet: {outcome.committed:,} draws on 1,000 engines in {outcome.last_commit:.0f} virtual s, "
        f"{outcome.last_commit / bound:.3f} of the lower bound ({why}); {time.monotonic() - began:.0f} s of core"
    )


def memory() -> None:
    """What a core of 30 contexts holds."""
    for draws in (2_304, 23_040, 2_304_000):
        tracemalloc.start()
        core = _core(draws)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        print(f"memory: a core that owes {core.state.counters.owed:>12,} draws holds {held / 1e6:.2f} MB")


def _core(draws: int) -> Core:
    questions = LengthEstimator(["benchmark"] * 768, [4000.0] * 768)
    sampling, budget = SamplingSpec(1.0, seeds=()), BudgetSpec("native-strict", answer_tokens=512)
    patches, contexts = [], []
    for number in range(30):
        name, shape = f"v{number}", Shape("model", 28, "bfloat16")
        patches.append(PatchWork(PatchRequest(name, PruneSpec("dense"), {}), "model", PatchState.OWED))
        context = Context(name, "answers", shape, name, sampling, budget, None, 40960, name)
        work = ContextWork(context, (), number, questions, draws // 768, 8192, fresh=range(draws))
        contexts.append(work)
    return Core(Policy(), patches, contexts)


if __name__ == "__main__":
    plan()
    pace()
    fleet()
    memory()
