"""Which processes the drill kills and when, and which it leaves alone."""

import subprocess
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.drill.faults import ProcessKind, StoreCounts, kill_here, plan_kills


@given(
    st.integers(0, 999),
    st.integers(0, 40),
    st.builds(StoreCounts, st.integers(1, 500), st.integers(1, 500), st.integers(1, 9)),
)
def test_kills_are_a_function_of_the_seed_and_fall_within_the_sweep(seed: int, kills: int, whole: StoreCounts) -> None:
    planned = plan_kills(seed, kills, whole)
    assert planned == plan_kills(seed, kills, whole)
    assert len(planned) == kills
    assert all(0 <= kill.at < whole.total for kill in planned)
    assert all(kill.at < whole.patches for kill in planned if kill.kind is ProcessKind.PRUNER)
    counts = Counter(kill.kind for kill in planned)
    assert ProcessKind.RANK not in counts
    assert not counts or max(counts.values()) - min(counts[k] for k in ProcessKind if k is not ProcessKind.RANK) <= 1


def test_another_seed_kills_otherwise() -> None:
    whole = StoreCounts(100, 200, 3)
    assert plan_kills(1, 8, whole) != plan_kills(2, 8, whole)


def test_process_that_is_not_rays_is_left_alone() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        assert kill_here(bystander.pid) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert kill_here(bystander.pid) is None
