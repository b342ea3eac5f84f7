"""`python -m eval`: evaluate one model, or grade answers with `python -m eval grade`. Engine, store and loop are in
packages above this one, so this file, alone in `eval`, imports from there (tests/test_imports.py names the exception).
"""

import sys

from eval.grade_command import main as grade
from orchestrator.cli import run_command
from orchestrator.evaluate import main as evaluate

if __name__ == "__main__":
    grading = sys.argv[1:2] == ["grade"]
    sys.exit(run_command(lambda: grade(sys.argv[2:])) if grading else evaluate())
