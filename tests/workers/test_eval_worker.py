"""The worker that evaluates, over a store that refuses to give out what it holds. Its engine is scripted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from eval.spec import BudgetSpec
from orchestrator.store.store import Store
from tests.support.builders import TINY, make_context, make_item, make_row
from workers.engines.engine import EngineFault, EngineSettings, Finished
from workers.engines.scripted_engine import Latency, ScriptedEngine, ScriptedEngines
from workers.eval_worker import EvalWorker
from workers.evaluation import FeedSettings
from workers.failure import Failure, FailureKind
from workers.messages import Committed, Rejected, Report, Shard, StoreBlocked, TaskEnded, TaskFailed, WantsMore
from workers.worker import Inbox, WorkerFault

SETTINGS = EngineSettings("bfloat16", 512)


class TwoShards:
    """One shard of new draws, and while they are made another one whose traces cannot be read: a file is in the way of
    its folder."""

    def __init__(self, folder: Path, store_seconds: float) -> None:
        self.store = Store.open(str(folder / "store"))
        self.store.commit_draws([make_row(prompt=prompt, cuts=(4,), limit=4) for prompt in ("other", "p0")])
        self._held, self._aside = Path(self.store.root, "draws", "c"), folder / "aside"
        self._held.rename(self._aside)
        self._held.write_text("no folder")
        engines = ScriptedEngines(str(folder / "ledger"), latency=Latency(tokens_per_step=1), tail=9.0)
        feed = FeedSettings(in_flight=8, commit_seconds=0.0, store_seconds=store_seconds)
        engine = engines(TINY / "model", 4, SETTINGS)
        self._worker = EvalWorker("engine", engine, self.store, TINY / "model", folder, feed)

    def run(self, hear: Callable[[Report], None] = lambda report: None) -> list[Report]:
        new = Shard("new", make_context("d"), tuple(make_item(f"p{n}", number=n) for n in range(4)))
        continued = Shard("continued", make_context("c"), (replace(make_item("p0"), continues=True),))
        inbox, said = Inbox(), []
        for report in self._worker.run(new, inbox):
            if isinstance(report, WantsMore) and WantsMore("new") not in said:
                inbox.put(continued)
            said.append(report)
            hear(report)
        return said

    def mend(self) -> None:
        self._held.unlink()
        self._aside.rename(self._held)


def test_shard_whose_traces_cannot_be_read_is_kept_and_draws_in_flight_go_on(tmp_path: Path) -> None:
    two = TwoShards(tmp_path, store_seconds=60.0)

    def mend_when_the_new_draws_are_made(report: Report) -> None:
        if report == TaskEnded("new"):
            two.mend()

    said = two.run(mend_when_the_new_draws_are_made)
    assert {(report.task_id, report.failure.kind) for report in said if isinstance(report, StoreBlocked)} == {
        ("continued", "store")
    }
    assert not [report for report in said if isinstance(report, TaskFailed)]
    assert said[-1] == TaskEnded("continued")
    assert two.store.stored_draws("d") == {("d", f"p{n}", 0) for n in range(4)}
    assert sorted(two.store.read("draws", "c", ["start"])["start"].to_pylist()) == [0, 0, 4]


def test_shard_whose_traces_stay_out_of_reach_fails_alone_and_another_is_asked_for(tmp_path: Path) -> None:
    said = TwoShards(tmp_path, store_seconds=0.0).run()
    failed = [report for report in said if isinstance(report, TaskFailed)]
    assert [(report.task_id, report.failure.kind) for report in failed] == [("continued", "store")]
    after = said[said.index(failed[0]) + 1 :]
    assert WantsMore("new") in after
    assert sum(len(report.numbers) for report in after if isinstance(report, Committed)) == 4
    assert after[-1] == TaskEnded("new")


def evaluate(folder: Path, store: Store, shard: Shard) -> list[Report]:
    engine = ScriptedEngines(str(folder / "ledger"), tail=9.0)(TINY / "model", 4, SETTINGS)
    worker = EvalWorker("engine", engine, store, TINY / "model", folder, FeedSettings(commit_seconds=0.0))
    return list(worker.run(shard, Inbox()))


@pytest.mark.parametrize("mode", ["native-strict", "s1-legacy", "none"])
def test_every_generated_token_is_counted_once(tmp_path: Path, mode: str) -> None:
    """In mode none an answer is a part of the trace, and each limit's has its own copy."""
    store = Store.open(str(tmp_path / "store"))
    budget = BudgetSpec(mode, answer_tokens=None if mode == "none" else 8)
    items = tuple(make_item(f"p{n}", seed=n, limits=(4, 8, 16), number=n) for n in range(4))
    said = evaluate(tmp_path, store, Shard("new", replace(make_context("d"), budget=budget), items))
    made = [ask.tokens for ask in ScriptedEngines(str(tmp_path / "ledger")).generated()]
    committed = [report for report in said if isinstance(report, Committed)]
    assert sum(report.trace_tokens + report.answer_tokens for report in committed) == sum(made)
    assert sum(report.trace_tokens for report in committed) == sum(store.read("draws", "d")["trace_tokens"].to_pylist())


def test_line_of_the_ledger_that_is_still_being_written_is_no_completion(tmp_path: Path) -> None:
    """As the drill and its tests may find it: they read while engines write, and after some were killed."""
    evaluate(tmp_path, Store.open(str(tmp_path / "store")), Shard("new", make_context("d"), (make_item("p0"),)))
    engines = ScriptedEngines(str(tmp_path / "ledger"))
    whole = engines.generated()
    (ledger,) = Path(engines.ledger).glob("*.jsonl")
    with ledger.open("a") as file:
        file.write('{"variant": "cut o')
    assert whole
    assert engines.generated() == whole


def test_loop_that_began_in_a_stored_trace_is_known_of_its_continuation(tmp_path: Path) -> None:
    store, digit = Store.open(str(tmp_path / "store")), 7
    store.commit_draws([make_row([digit] * 80, (80,), limit=80)])
    item = replace(make_item("p0", limits=(90,)), continues=True)
    evaluate(tmp_path, store, Shard("continued", make_context("c"), (item,)))
    rows = store.read("draws", "c", ["start", "loop_at"]).to_pylist()
    assert [row["loop_at"] for row in rows if row["start"]] == [70]


class NanEngine(ScriptedEngine):
    """Dies of NaN in the oldest of its asks as soon as one of the first four draws has been finished."""

    def step(self) -> Sequence[Finished]:
        draws = {name.partition("/")[0] for name in self._active}
        if len(draws) == 4:
            return super().step()
        raise EngineFault(Failure(FailureKind.NAN, "NaN while decoding"), [next(iter(self._active))])


def test_engine_that_dies_of_nan_has_the_draw_at_fault_rejected_and_what_was_finished_committed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    script = ScriptedEngines(str(tmp_path / "ledger"), latency=Latency(tokens_per_step=1))
    pace = FeedSettings(in_flight=4, commit_seconds=9.0)
    worker = EvalWorker("engine", NanEngine(TINY / "model", SETTINGS, script), store, TINY / "model", tmp_path, pace)
    shard = Shard(
        "new", make_context("d"), tuple(make_item(f"p{n}", seed=n, limits=(8, 200), number=n) for n in range(4))
    )
    said: list[Report] = []
    with pytest.raises(WorkerFault, match="nan: "):
        said.extend(worker.run(shard, Inbox()))
    (rejected,) = [report for report in said if isinstance(report, Rejected)]
    assert (len(rejected.numbers), rejected.failure.kind) == (1, FailureKind.NAN)
    (committed,) = [report for report in said if isinstance(report, Committed)]
    assert committed.numbers
    assert not set(committed.numbers) & set(rejected.numbers)
