r"""Grade what must be right: every gold of MATH-500 in nine forms, and every gold against every other.

    python -m benchmarks.grading --math500 MATH-500.parquet [--pairs] [--json]

The file is the hub's (HuggingFaceH4/MATH-500) or a copy with its columns. A gold in any form must be CORRECT. A pair of
different golds that is called equal must be one that docs/evaluation.md lists as a leniency: they are printed.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import pyarrow.parquet as parquet

from eval.equality.same_value import same_value
from eval.grader_pool import GraderPool
from eval.grading import GradeItem

FORMS: dict[str, Callable[[str], str]] = {
    "boxed": lambda gold: rf"So the answer is \boxed{{{gold}}}.",
    "formula": lambda gold: f"Therefore ${gold}$.",
    "display": lambda gold: f"We get\n\\[\n{gold}\n\\]",
    "display, dollars": lambda gold: f"We get\n$$\n{gold}\n$$",
    "bare": lambda gold: gold,
    "answer is": lambda gold: f"The answer is ${gold}$.",
    "final answer is": lambda gold: f"The final answer is {gold}. I hope it is correct.",
    "first line": lambda gold: f" {gold}\n\nExplanation: we add 2 and 3.",
}


def wrong_forms(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    """(form, gold, verdict) of each gold that is not CORRECT in a form, the data set's own solution included."""
    named = [(form, row["answer"], write(row["answer"])) for row in rows for form, write in FORMS.items()]
    named += [("solution", row["answer"], row["solution"]) for row in rows]
    with GraderPool(workers=2) as pool:
        grades = pool.grade_many([GradeItem(text, gold) for _, gold, text in named])
    return [
        (form, gold, grade.spelled())
        for (form, gold, _), grade in zip(named, grades, strict=True)
        if grade.verdict != "CORRECT"
    ]


def equal_to(gold_and_others: tuple[str, list[str]]) -> list[tuple[str, str]]:
    """The pairs of one gold with another that are called equal. The golds are trusted, so no cage is needed."""
    logging.disable(logging.CRITICAL)
    gold, others = gold_and_others
    return [(gold, other) for other in others if other != gold and same_value(gold, other)]


def main() -> None:
    """Print what is wrong, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--math500", type=Path, required=True, metavar="FILE", help="parquet, with answer and solution")
    parser.add_argument("--pairs", action="store_true", help="compare every gold with every other, too (minutes)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    began = time.monotonic()
    rows = parquet.read_table(arguments.math500, columns=["answer", "solution"]).to_pylist()
    wrong = wrong_forms(rows)
    golds = sorted({row["answer"] for row in rows}) if arguments.pairs else []
    with Pool(2) as pool:
        equal = [pair for pairs in pool.imap(equal_to, [(gold, golds) for gold in golds], 4) for pair in pairs]
    summary = {
        "texts": len(rows) * (len(FORMS) + 1),
        "wrong": wrong,
        "pairs": len(golds) * (len(golds) - 1),
        "equal": equal,
        "seconds": round(time.monotonic() - began, 1),
    }
    if arguments.json:
        print(json.dumps(summary))
        return
    for row in [*wrong, *equal]:
        print(*row, sep="   ")
    print(f"{len(wrong)} of {summary['texts']:,} texts are wrong; {len(equal)} of {summary['pairs']:,} pairs are equal")


if __name__ == "__main__":
    main()
