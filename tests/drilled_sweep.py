"""`python -m tests.drilled_sweep GRID.yaml STORE LEDGER [STRIKES.json]`: the sweep command, on scripted engines.

Everything but the engine is what `python -m orchestrator.sweep` runs. With strikes, the store is one that kills, stops
or fails processes at exact moments of its commits (tests/struck_store.py).
"""

import os
import sys
from pathlib import Path

from orchestrator.cli import run_command
from orchestrator.grid import read_grid
from orchestrator.store import Store
from orchestrator.sweep import run
from tests.struck_store import StruckStore, read_strikes
from workers.scripted_engine import Latency, ScriptedEngines


def main(grid: str, store: str, ledger: str, strikes: str = "") -> int:
    engines = ScriptedEngines(ledger, latency=Latency(step=0.01, real=True))
    opened = Store.open(store)
    if strikes:
        opened = StruckStore.over(opened, ledger, os.getpid(), read_strikes(Path(strikes)))
    return run_command(lambda: run(read_grid(Path(grid)), opened, engines))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
