"""Make the problems of this example: sums, products and short stories that a model of 135 M parameters can half do.

    python -m pip install reasoning-gym==0.1.25      # into an environment of its own: only this script needs it
    python -m examples.smollm2.make_problems

writes ``problems.jsonl``, which the grid evaluates, and ``calibration-problems.jsonl``, whose traces it calibrates on.
No problem is in both. The files are committed, and the generators are seeded.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SEED = 20
ONE_DIGIT = {"min_digits": 1, "max_digits": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any], int, int]] = {
    # name -> reasoning-gym's generator, its settings, how many are evaluated, how many are calibrated on
    "sum": ("chain_sum", {"min_terms": 2, "max_terms": 2, **ONE_DIGIT}, 40, 60),
    "sum3": ("chain_sum", {"min_terms": 3, "max_terms": 3, **ONE_DIGIT}, 16, 40),
    "product": ("products", {"min_terms": 2, "max_terms": 2, **ONE_DIGIT}, 30, 40),
    "syllogism": ("syllogism", {}, 20, 40),
    "story": ("needle_haystack", {"min_num_statements": 2, "max_num_statements": 3}, 14, 20),
}


def question(row: dict[str, Any]) -> str:
    """An expression is asked for plainly: reasoning-gym's own words for it are harder than the sum."""
    expression = row["metadata"].get("expression")
    return f"What is {expression}?" if expression else re.sub(r" Reply only with a name\.", "", row["question"]).strip()


def distinct(generator: str, settings: dict[str, Any], seen: set[str]) -> Iterator[tuple[str, str]]:
    """Endless questions and answers, none of them in `seen`, which grows."""
    import reasoning_gym

    for row in reasoning_gym.create_dataset(generator, size=100_000, seed=SEED, **settings):
        text = question(row)
        if text not in seen:
            seen.add(text)
            yield text, str(row["answer"])


def main() -> None:
    evaluated, calibrated = [], []
    seen: set[str] = set()
    for name, (generator, settings, count, more) in FAMILIES.items():
        rows = distinct(generator, settings, seen)
        for index, (problem, answer) in zip(range(count + more), rows, strict=False):
            row = {"id": f"{name}-{index:03}", "problem": problem, "answer": answer}
            (evaluated if index < count else calibrated).append(row)
    for file, problems in (("problems.jsonl", evaluated), ("calibration-problems.jsonl", calibrated)):
        (HERE / file).write_text("".join(json.dumps(row) + "\n" for row in problems), encoding="utf-8")
        print(f"{file}: {len(problems)} problems")


if __name__ == "__main__":
    main()
