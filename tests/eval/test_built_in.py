"""The table of built-in benchmarks: pins that cannot move, and names in any case."""

import re

from eval.built_in import BUILT_IN, built_in_name


def test_pins_are_full_commit_ids_with_their_counts() -> None:
    assert {name: source.count for name, source in BUILT_IN.items()} == {
        "MATH-500": 500, "AIME24": 30, "AIME25": 30, "AMC23": 40, "GPQA-Diamond": 198, "GSM8K": 1319, "SVAMP": 300,
    }  # fmt: skip
    for source in BUILT_IN.values():
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision)


def test_a_name_is_known_in_any_case_and_no_two_differ_by_case_only() -> None:
    for name in BUILT_IN:
        assert built_in_name(name.lower()) == built_in_name(name.upper()) == built_in_name(name) == name
    assert built_in_name("MATH500") is None
