"""How far a canary may be off: as far as the variant's own rounding, and never as far as wrong weights are."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.model.checkpoint import Checkpoint
from pruning.patch.canary import COMPARED
from pruning.patch.patch import Patch
from tests.workers.engines.conftest import MakePatch, random_checkpoint
from workers.engines.canary_check import TOLERANCE, CanaryCheck, mean_difference, tolerance
from workers.engines.engine import EngineFault, VariantFault

LOGPROBS = st.lists(st.floats(-60.0, 0.0), min_size=4, max_size=40)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A checkpoint like a collapsed variant: its log-probabilities are about -60, and rounding moves them by 0.3."""
    return random_checkpoint(tmp_path_factory.mktemp("large") / "model", tiny, seed=1, initializer_range=3.0)


def off_by(patch: Patch, nats: float) -> list[float]:
    """What an engine would answer that is off by so much on average."""
    return [value + nats for value in patch.manifest.canary.logprobs[:COMPARED]]


def without_record(patch: Patch, name: str = "old") -> Patch:
    """The same patch as an earlier version made it."""
    manifest = patch.manifest
    return Patch(patch.folder.with_name(name), replace(manifest, canary=replace(manifest.canary, rounded={})))


@given(LOGPROBS, st.data())
def test_a_tenth_of_a_nat_is_always_allowed_and_the_answer_of_no_weights_never(
    recorded: list[float], data: st.DataObject
) -> None:
    rounded = data.draw(st.lists(st.floats(-200.0, 0.0), min_size=len(recorded), max_size=len(recorded)))
    allowed = tolerance(recorded, rounded)
    constant = data.draw(st.floats(-60.0, 0.0))
    off = mean_difference([constant] * len(recorded), recorded)
    assert allowed >= TOLERANCE
    assert allowed == TOLERANCE or off > allowed, "an engine that answers the same everywhere is proved"


@pytest.mark.parametrize("overflow", [float("nan"), float("-inf")])
def test_rounding_that_overflows_allows_nothing_more(overflow: float) -> None:
    assert tolerance([-1.0, -20.0, -40.0], [-1.5, overflow, -41.0]) == TOLERANCE


def test_rounding_of_the_variant_itself_is_allowed_and_twenty_times_as_much_is_not(
    large: Path, make_patch: MakePatch
) -> None:
    base, patch = Checkpoint.open(large), Patch.open(make_patch(large))
    exact, rounded = patch.manifest.canary.logprobs[:COMPARED], patch.manifest.canary.rounded["bfloat16"][:COMPARED]
    rounding = mean_difference(rounded, exact)
    assert rounding > 2 * TOLERANCE, "the checkpoint does not show what this test is about"
    check = CanaryCheck("bfloat16")
    assert check.difference(rounded, base, patch) == rounding
    assert check.difference(off_by(patch, 2 * rounding), base, patch) == pytest.approx(2 * rounding)
    with pytest.raises(VariantFault, match=r"canary: .*every tensor is in place, but the canary's log-probabilities"):
        check.difference(off_by(patch, 20 * rounding), base, patch)


def test_patch_without_a_record_of_rounding_is_judged_as_one_with_it(large: Path, make_patch: MakePatch) -> None:
    """Stores hold patches of earlier versions, and none is made again."""
    base, patch = Checkpoint.open(large), Patch.open(make_patch(large))
    old = without_record(patch)
    rounded = patch.manifest.canary.rounded["bfloat16"][:COMPARED]
    check = CanaryCheck("bfloat16")
    assert check.difference(rounded, base, old) == check.difference(rounded, base, patch)
    with pytest.raises(VariantFault, match="canary: swap to old: every tensor is in place"):
        check.difference(off_by(patch, 20.0), base, old)


def test_second_variant_in_a_row_that_an_engine_refuses_speaks_against_the_engine(
    tiny: Path, make_patch: MakePatch
) -> None:
    base, patch = Checkpoint.open(tiny), Patch.open(make_patch(tiny))
    first, second = without_record(patch, "first"), without_record(patch, "second")
    check, sound, wrong = CanaryCheck("bfloat16"), off_by(patch, 0.01), off_by(patch, 5.0)
    for _ in range(2):
        with pytest.raises(VariantFault, match="canary: swap to first"):
            check.difference(wrong, base, first)
    with pytest.raises(EngineFault, match=r"proof: swap to second: .*has just refused first, too"):
        check.difference(wrong, base, second)
    check.difference(sound, base, first)
    with pytest.raises(VariantFault, match="canary: swap to second"):
        check.difference(wrong, base, second)
