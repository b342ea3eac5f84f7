"""What the store has of a context: measured draws, and which draws a lost worker still owes."""

from pathlib import Path

from orchestrator.plan.stored import read_draws, still_owed
from orchestrator.store.store import Store
from tests.support.builders import make_item, make_row
from workers.rows.draw_rows import MeasuredDraw


def test_lost_worker_s_draws_are_owed_unless_every_limit_is_answered(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    whole = make_row(prompt="whole", cuts=(2, 4), limit=4)
    part = make_row(prompt="part", cuts=(2,), limit=4)
    short = make_row(prompt="short", cuts=(2, 4), limit=4)
    store.commit_draws([whole, part, short])
    limits = {"whole": (2, 4), "part": (2, 4), "short": (4, 8), "none": (2, 4)}
    items = [make_item(prompt, limits=asked, number=n) for n, (prompt, asked) in enumerate(limits.items())]
    assert still_owed(store, "c", "answers", items) == {1, 2, 3}


def test_draws_are_measured_with_the_cuts_that_are_answered(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    first = make_row((1, 2, 3, 4), (2, 4), limit=4)
    more = make_row((5, 6), (6,), start=4, limit=8, ended=True, created_at=2.0)
    for row in (more, first):
        store.commit_draws([row])
    assert read_draws(store, "c", "answers") == {("p0", 0): MeasuredDraw(6, True, frozenset({2, 4, 6}))}
