"""What variants are called, for people."""

from collections import Counter
from pathlib import Path

from orchestrator.grid.calibration import OwnTraces
from orchestrator.grid.parse import Grid
from pruning.spec import CalibrationSpec, PruneSpec, describe


def distinct_labels(grid: Grid) -> list[str]:
    """A label for each variant: `wanda + uniform at 0.5`, and on which data where that alone tells several apart."""
    plain = Counter((variant.model.path, describe(variant.spec)) for variant in grid.variants)
    sources: dict[tuple[str, str], set[CalibrationSpec]] = {}
    for variant in grid.variants:
        if (data := _data(variant.spec)) is not None:
            sources.setdefault((variant.model.path, describe(variant.spec)), set()).add(data)
    labels = []
    for variant in grid.variants:
        key = (variant.model.path, describe(variant.spec))
        data = _data(variant.spec)
        others = sources.get(key, set())
        if data is None or len(others) < 2 or plain[key] < 2:
            labels.append(key[1])
        else:
            labels.append(f"{key[1]}, {data_label(data, others)}")
    return labels


def data_label(data: CalibrationSpec, others: set[CalibrationSpec]) -> str:
    """`own-traces`, with what tells `data` apart from `others` where its name does not."""
    name = _name(data)
    alike = [other for other in others if _name(other) == name]
    if len(alike) == 1:
        return name
    traces = [f"{Path(data.problems.name).stem} at {data.temperature:g}"] if isinstance(data, OwnTraces) else []
    return " ".join([name, *traces, f"{data.samples} x {data.tokens}", f"seed {data.seed}"])


def _data(spec: PruneSpec) -> CalibrationSpec | None:
    return spec.calibration or spec.influence_train


def _name(data: CalibrationSpec) -> str:
    """A file by its stem, anything else as it is."""
    path = Path(data.data)
    return path.stem if path.suffix else data.data
