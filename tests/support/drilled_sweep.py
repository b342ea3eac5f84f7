"""`python -m tests.support.drilled_sweep GRID --store URI --ledger FOLDER [--faults FILE]`: a sweep, scripted engines.

Everything but the engine is what `python -m orchestrator.sweep` runs. With faults, the store kills, stops or fails
processes at exact moments of its commits (tests/support/faulty_store.py).
"""

import os
import sys
from pathlib import Path

from orchestrator.cli import run_command, sweep_parser
from orchestrator.grid.parse import read_grid
from orchestrator.store.lease import BEAT_SECONDS
from orchestrator.store.store import Store
from orchestrator.sweep import run
from tests.support.faulty_store import FaultyStore, read_faults
from workers.engines.scripted_engine import Latency, ScriptedEngines, Stall


def main() -> int:
    parser = sweep_parser()
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--faults", type=Path)
    parser.add_argument("--stall", type=int, action="append", default=[], metavar="ASK", help="an engine stalls, once")
    parser.add_argument("--step", type=float, default=0.0, metavar="SECONDS", help="what an engine's step takes")
    parser.add_argument("--beat", type=float, default=BEAT_SECONDS, metavar="SECONDS", help="of the driver's lease")
    options = parser.parse_args()
    store = Store.open(options.store)
    if options.faults:
        store = FaultyStore.over(store, options.ledger, os.getpid(), read_faults(options.faults))
    engines = ScriptedEngines(
        options.ledger,
        tuple(Stall(at_ask, times=1) for at_ask in options.stall),
        Latency(step=options.step, real=True),
    )
    return run_command(lambda: run(read_grid(Path(options.grid)), store, engines, options.beat))


if __name__ == "__main__":
    sys.exit(main())
