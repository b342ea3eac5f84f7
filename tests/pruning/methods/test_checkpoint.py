"""A checkpoint of one's own as a variant: what it is called."""

from __future__ import annotations

import pytest

from pruning.resolve import resolve
from pruning.spec import PruneSpec


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("results/wanda-50", "wanda-50"),
        ("results/wanda-50/", "wanda-50"),
        ("org/pruned@3f2a", "pruned"),
        ("..", ".."),
        ("/", "/"),
    ],
)
def test_checkpoint_is_called_by_the_last_part_of_its_path_unless_it_is_given_a_label(path, label):
    assert resolve(PruneSpec("checkpoint", path=path)).label == label
    assert resolve(PruneSpec("checkpoint", path=path, label="mine")).label == "mine"
