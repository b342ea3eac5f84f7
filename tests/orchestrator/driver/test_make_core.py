"""What a fleet is taken for: engines that fit onto its nodes; and what of a plan its pruners share."""

import pytest

from orchestrator.cluster.backend import Devices
from orchestrator.driver.make_core import make_core
from orchestrator.grid.errors import InputError
from tests.support.builders import TINY, TinySweep


@pytest.mark.parametrize(
    ("node_gpus", "size", "slots"), [((6, 6), 4, 2), ((0, 8, 8), 1, 16), ((8, 2), 4, 2), ((0,), 4, 3)]
)
def test_slots_are_the_engines_that_fit_onto_each_node(
    sweep: TinySweep, node_gpus: tuple[int, ...], size: int, slots: int
) -> None:
    sweep.runtime = {"slots": None, "engines": None, "tensor_parallel": size}
    plan = sweep.plan()
    policy = make_core(plan, sweep.store, plan.resolved.grid.runtime, Devices(3, node_gpus)).state.policy
    assert (policy.slots, policy.engines) == (slots, slots if any(node_gpus) else 1)


@pytest.mark.parametrize(
    ("node_gpus", "slots"), [((0, 8, 6), {"head": 0, "a": 2, "b": 1}), ((0, 0, 0), {"head": 1, "a": 16, "b": 16})]
)
def test_core_knows_which_slots_a_node_takes_with_it(
    sweep: TinySweep, node_gpus: tuple[int, ...], slots: dict[str, int]
) -> None:
    sweep.runtime = {"slots": None, "engines": None, "tensor_parallel": 4}
    plan, devices = sweep.plan(), Devices(33, node_gpus, (1, 16, 16), ("head", "a", "b"))
    assert make_core(plan, sweep.store, plan.resolved.grid.runtime, devices).state.policy.nodes == slots


def test_engine_that_fits_onto_no_node_is_refused_with_the_setting_and_the_nodes(sweep: TinySweep) -> None:
    sweep.runtime = {"tensor_parallel": 8}
    plan = sweep.plan()
    with pytest.raises(InputError, match=r"runtime\.tensor_parallel: .* 8 GPUs .* more than 6 .* set it to 6 or less"):
        make_core(plan, sweep.store, plan.resolved.grid.runtime, Devices(3, (6, 6)))


def test_patches_carry_the_names_of_the_passes_that_they_share(sweep: TinySweep) -> None:
    data = {"data": str(TINY / "calibration.jsonl"), "samples": 4, "tokens": 32}
    sweep.variants = [
        {"method": "dense"},
        {"method": "magnitude", "allocator": "owl", "sparsity": [0.2, 0.3], "calibration": data},
        {"method": "wanda", "allocator": "owl", "sparsity": 0.2, "calibration": data | {"seed": 1}},
    ]
    plan = sweep.plan()
    core = make_core(plan, sweep.store, plan.resolved.grid.runtime, Devices(2, (0,)))
    dense, one, other, elsewhere = (patch.passes for patch in core.state.patches.values())
    assert dense == ()
    assert len(one) == 1
    assert one == other
    assert not set(elsewhere) & set(one)
