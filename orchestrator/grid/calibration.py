"""What a grid says of calibration data, as specs: files and hub data sets, and the base model's own traces."""

from dataclasses import dataclass
from typing import Any

from eval.spec import BenchmarkSpec, check_benchmark, is_whole
from orchestrator.grid.format import OWN_TRACES, BenchmarkEntry, CalibrationEntry
from pruning.spec import CalibrationSpec

_NOTHING = BenchmarkSpec("")


@dataclass(frozen=True)
class OwnTraces(CalibrationSpec):
    """Calibration on the unpruned model's own reasoning, prompt and trace joined, as in RAC (arXiv 2509.12464).

    The sweep draws the traces first. `problems` is what the model thinks about, named as in a grid's `benchmarks`:
    there is a trace per problem for `first_seed`, then one per problem for the next seed, and so on, until they fill
    the windows. `temperature` is that of the traces, `limit` the most thinking tokens of each.
    """

    problems: BenchmarkSpec = _NOTHING
    temperature: float = 0.0
    limit: int = 0
    first_seed: int = 0


def benchmark_of(entry: BenchmarkEntry) -> BenchmarkSpec:
    """The spec of a benchmark, or of a part of one. Raises ValueError if it cannot be."""
    columns = tuple(entry.columns.model_dump(exclude_none=True).items())
    spec = BenchmarkSpec(**(entry.model_dump() | {"columns": columns}))
    check_benchmark(spec)
    return spec


def calibration_of(entry: CalibrationEntry, temperature: float) -> CalibrationSpec:
    """The spec of an entry. `temperature`: the grid's, at which the model's own traces are drawn if the entry has none.

    Raises ValueError for settings that its source does not have, or lacks.
    """
    given = entry.model_dump(exclude={"problems", "temperature", "limit"})
    own: dict[str, Any] = {"problems": entry.problems, "temperature": entry.temperature, "limit": entry.limit}
    if entry.data != OWN_TRACES:
        if extra := [name for name, value in own.items() if value is not None]:
            raise ValueError(f"calibration.{extra[0]}: only {OWN_TRACES} has it, and the data is {entry.data}; drop it")
        return CalibrationSpec(**given)
    if entry.problems is None:
        raise ValueError(
            f"calibration.problems: {OWN_TRACES} needs problems for the model to think about, other than those of "
            "`benchmarks`; give a file or a built-in benchmark"
        )
    own["problems"] = benchmark_of(entry.problems)
    own["temperature"] = temperature if entry.temperature is None else entry.temperature
    own["limit"] = entry.tokens if entry.limit is None else entry.limit
    if not is_whole(own["limit"]) or own["limit"] < 1:
        raise ValueError(f"calibration.limit: {own['limit']!r} counts thinking tokens; give at least 1")
    if own["temperature"] < 0:
        raise ValueError(f"calibration.temperature: {own['temperature']!r} is negative; give 0 (greedy) or more")
    return OwnTraces(**given, **own, first_seed=entry.seed)
