"""`python -m eval`: the doorway to evaluating one model. The engine, the store and the loop live above this
package, so the work is done there, and nothing here is imported by anybody (tests/test_imports.py knows
this one exception).
"""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("orchestrator.evaluate").main())
