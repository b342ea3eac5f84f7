"""N:M patterns against naive references, by every method that scores weights."""

from __future__ import annotations

import numpy as np
import pytest

from pruning.spec import PruneSpec
from tests.support import reference as naive
from tests.support.pruned import assert_same_masks, pruned_weights


@pytest.mark.parametrize("pattern", ["2:4", "1:4"])
@pytest.mark.parametrize("method", ["magnitude", "wanda", "ria"])
def test_pattern_drops_the_smallest_of_each_group(checkpoints, windows_file, calibration, tmp_path, method, pattern):
    spec = PruneSpec(method, pattern=pattern, calibration=calibration if method != "magnitude" else None)
    got = pruned_weights(checkpoints["qwen2"], spec, tmp_path / "patch")
    score = {"magnitude": lambda w, x: np.abs(w), "wanda": naive.wanda_score, "ria": naive.ria_score}[method]
    n, m = map(int, pattern.split(":"))
    model = naive.whole_model(checkpoints["qwen2"])
    dropped, _ = naive.sequential(
        model, np.load(windows_file), lambda key, w, x: (naive.n_of_m(score(w, x), n, m), w), pruned=True
    )
    assert_same_masks(got, dropped)
