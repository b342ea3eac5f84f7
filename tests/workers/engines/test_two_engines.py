"""Two engines on one CPU host at once, each a process of its own: the answers of one, no fight over the cores, and one
key for what vLLM compiles."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT
from tests.support.asks import complete, long_prompts
from tests.workers.engines.conftest import MakePatch, OneEngine

PROCESS = """
import json, os, sys
from pathlib import Path
from tests.workers.engines.conftest import SETTINGS
from tests.support.asks import complete, long_prompts
from workers.engines.vllm_engine import VllmEngine
import torch

base, patch = map(Path, sys.argv[1:])
engine = VllmEngine(base, None, SETTINGS)
engine.load(base, patch)
print("ready", flush=True)
input()
answers = complete(engine, long_prompts(base))
facts = {"answers": answers, "threads": torch.get_num_threads(), "cores": len(os.sched_getaffinity(0))}
facts["compiled"] = engine._engine.vllm_config.compute_hash()
print(json.dumps(facts), flush=True)
engine.close()
"""


def test_two_engines_at_once_answer_as_one_and_compute_on_one_thread_each(
    tiny: Path, engine: OneEngine, make_patch: MakePatch
) -> None:
    patch = make_patch(tiny, "magnitude", sparsity=0.2)
    # As a user's shell has it: nothing says how many threads there should be.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", PROCESS, str(tiny), str(patch)]
    engines = [
        subprocess.Popen(
            command, env=environment | {"PYTHONPATH": str(ROOT)}, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    one = engine(tiny)
    one.load(tiny, patch)
    expected = complete(one, long_prompts(tiny))
    compiled = one._engine.vllm_config.compute_hash()
    for process in engines:
        assert process.stdout is not None
        assert "ready\n" in process.stdout
    for process in engines:  # both start on the same asks together
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in engines:
        told = json.loads(process.communicate()[0].splitlines()[-1])
        assert [tuple(answer) for answer in told["answers"]] == expected
        assert told["threads"] == 1
        assert told["cores"] == len(os.sched_getaffinity(0)), "a pinned engine could share its core with another's"
        assert told["compiled"] == compiled, "an engine on a GPU would compile what another has compiled"
    assert engine(tiny, layers=1)._engine.vllm_config.compute_hash() != compiled
