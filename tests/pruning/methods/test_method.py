"""The rows of the two tables: each says one way of pruning, and takes what follows from it."""

from __future__ import annotations

import pytest

from pruning.allocators import ALLOCATORS, DEFAULT
from pruning.knobs import knobs_of
from pruning.methods import METHODS
from pruning.spec import DENSE, PruneSpec


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_method_prunes_in_one_way(method):
    ways = [method.score, method.solve, method.keep_blocks]
    assert sum(way is not None for way in ways) + method.reads_checkpoint == (method.name != DENSE)
    assert method.masks + method.removes_blocks + method.reads_checkpoint == (method.name != DENSE)
    assert METHODS[method.name] is method


@pytest.mark.parametrize(
    ("method", "knobs"),
    [
        ("dense", []),
        ("magnitude", ["group", "selection", "tie_limit"]),
        ("wanda", ["group", "selection", "tie_limit", "propagate"]),
        ("sparsegpt", ["selection", "propagate", "sparsegpt_block", "sparsegpt_damp"]),
        ("shortgpt", ["last_block"]),
        ("checkpoint", []),
    ],
)
def test_knobs_follow_from_the_traits(method, knobs):
    assert list(knobs_of(PruneSpec(method))) == knobs


def test_allocators_are_named_once_and_at_most_one_way_of_measuring():
    for name, allocator in ALLOCATORS.items():
        assert allocator.name == name
        assert allocator.block_statistic is None or allocator.gradient_statistics is None
        assert not allocator.calibrated or allocator.block_statistic is not None
    assert ALLOCATORS[DEFAULT].block_statistic is None
