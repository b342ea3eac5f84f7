"""`python -m eval`: evaluate one model. Engine, store and loop are in packages above this one, so this file, alone in
`eval`, imports from there (tests/test_imports.py names the exception).
"""

import sys

from orchestrator.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
