"""Claims: how they are stored, and what an observed one says about a takeover."""

from dataclasses import replace

import pytest

from orchestrator.store.claim import MISSED_BEATS, Claim, Observation, Verdict, judge, read_claim

CLAIM = Claim("token", "far", "boot pid:1", 7, "100", "ada", "sweep grid.yaml", 0.0, beat_seconds=5.0, beat=3)
BEATEN, OTHER = replace(CLAIM, beat=4), replace(CLAIM, token="other")


@pytest.mark.parametrize(
    ("found", "seen", "verdict"),
    [
        (None, None, Verdict.TAKE),
        (None, Observation(True, CLAIM, 0.0), Verdict.TAKE),
        (CLAIM, None, Verdict.WATCH),
        (CLAIM, Observation(True, CLAIM, 0.0), Verdict.REFUSE),
        (CLAIM, Observation(True, CLAIM, 1e9), Verdict.REFUSE),  # stopped, or hanging: it may go on
        (CLAIM, Observation(False, CLAIM, 0.0), Verdict.TAKE),
        (BEATEN, Observation(False, CLAIM, 0.0), Verdict.TAKE),
        (CLAIM, Observation(None, CLAIM, 0.0), Verdict.WATCH),
        (CLAIM, Observation(None, CLAIM, 5.0 * MISSED_BEATS - 0.1), Verdict.WATCH),
        (CLAIM, Observation(None, CLAIM, 5.0 * MISSED_BEATS), Verdict.TAKE),
        (BEATEN, Observation(None, CLAIM, 0.0), Verdict.REFUSE),
        (BEATEN, Observation(None, CLAIM, 1e9), Verdict.REFUSE),
        (OTHER, Observation(None, CLAIM, 1e9), Verdict.REFUSE),
        (replace(CLAIM, beat_seconds=1e9), Observation(None, replace(CLAIM, beat_seconds=1e9), 1e4), Verdict.TAKE),
    ],
)
def test_verdict_on_a_claim(found: Claim | None, seen: Observation | None, verdict: Verdict) -> None:
    assert judge(found, seen) is verdict


def test_claim_is_stored_under_the_keys_it_always_had() -> None:
    assert CLAIM.document() == {
        "token": "token", "host": "far", "place": "boot pid:1", "pid": 7, "started": "100", "user": "ada",
        "command": "sweep grid.yaml", "since": 0.0, "beat_seconds": 5.0, "beat": 3,
    }  # fmt: skip


def test_claim_is_read_back_and_a_foreign_document_is_no_claim() -> None:
    assert read_claim(CLAIM.document()) == CLAIM
    assert read_claim({"note": "somebody's"}) is None
    assert read_claim(None) is None
