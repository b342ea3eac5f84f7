"""What variants are called where their calibration data alone tells them apart."""

from tests.support.builders import TINY, TinySweep

FILE = str(TINY / "calibration.jsonl")
WANDA = {"method": "wanda", "sparsity": 0.5}


def labels(sweep: TinySweep, *calibrations: dict[str, object]) -> list[str]:
    sweep.variants, sweep.calibration = [{"method": "dense"}, WANDA], list(calibrations)
    return [variant.label for variant in sweep.resolve_grid().variants]


def test_one_source_is_not_mentioned(sweep: TinySweep) -> None:
    assert labels(sweep, {"data": FILE, "samples": 4, "tokens": 32}) == ["dense", "wanda + uniform at 0.5"]


def test_files_are_told_apart_by_their_stems(sweep: TinySweep) -> None:
    other = sweep.folder / "web.jsonl"
    other.write_text((TINY / "calibration.jsonl").read_text() + '{"text": "1+1=2;"}\n')
    got = labels(sweep, *({"data": data, "samples": 4, "tokens": 32} for data in (FILE, str(other))))
    assert got[1:] == ["wanda + uniform at 0.5, calibration", "wanda + uniform at 0.5, web"]


def test_one_file_is_told_apart_by_how_it_is_used(sweep: TinySweep) -> None:
    got = labels(sweep, *({"data": FILE, "samples": samples, "tokens": 32} for samples in (4, 8)))
    assert got[1:] == [f"wanda + uniform at 0.5, calibration {samples} x 32 seed 0" for samples in (4, 8)]
