"""grid.yaml -> Grid: parsed, expanded and checked, with errors that name the line, the rule and the remedy.

Looks at nothing outside the file; the models and data that it names are read by orchestrator/plan/resolve.py.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from eval.formats import ThinkingFormat, named_format
from eval.grading import check_grader
from eval.modes import check_budget
from eval.spec import (
    BenchmarkSpec,
    BudgetSpec,
    PromptSpec,
    SamplingSpec,
    check_limits,
    check_prompt,
    check_sampling,
    nearest,
)
from orchestrator.grid.calibration import benchmark_of, calibration_of
from orchestrator.grid.errors import InputError
from orchestrator.grid.format import BenchmarkEntry, CalibrationEntry, FormatEntry, GridFile, ModelEntry, Runtime
from orchestrator.grid.source import GridSource, Location, read_yaml
from orchestrator.grid.validation import fault_messages, located
from pruning.methods import METHODS
from pruning.resolve import needs_calibration, resolve
from pruning.spec import CalibrationSpec, PruneSpec, describe

DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class Model:
    """A model as the grid gives it."""

    path: str
    format: ThinkingFormat | None
    dtype: str


@dataclass(frozen=True)
class Variant:
    """One set of weights to evaluate: a model and how to prune it."""

    model: Model
    spec: PruneSpec
    """Resolved: every knob that applies has a value."""
    line: int
    """Its entry's line in the file."""


@dataclass(frozen=True)
class Grid:
    """A whole sweep, as values. `variants` keep the order of the file, model by model."""

    source: GridSource
    name: str
    store: str
    variants: tuple[Variant, ...]
    token_limits: tuple[int, ...]
    benchmarks: tuple[BenchmarkSpec, ...]
    prompt: PromptSpec
    sampling: SamplingSpec
    budget: BudgetSpec
    runtime: Runtime

    def command(self, verb: str) -> str:
        """The command line of a verb on this grid, with the store if it is not the file's: for hints to the user."""
        elsewhere = "" if self.store == self.source.value["store"] else f" --store {shlex.quote(self.store)}"
        return f"python -m orchestrator {verb} {shlex.quote(self.source.name)}{elsewhere}"


def read_grid(path: Path) -> Grid:
    """Read and check a grid. Raises InputError with one line per fault."""
    return parse_grid(read_yaml(path))


def parse_grid(source: GridSource) -> Grid:
    """Check a grid that is already parsed as YAML. Raises InputError with one line per fault."""
    if not isinstance(source.value, dict):
        raise InputError(f"{source.where(())}: a grid is a mapping of keys such as name, models, variants")
    try:
        file = GridFile.model_validate(source.value)
    except ValidationError as error:
        raise InputError("\n".join(fault_messages(source, error.errors()))) from None
    limits = tuple(sorted(file.token_limits))
    sampling = SamplingSpec(**(file.sampling.model_dump() | {"seeds": tuple(file.sampling.seeds)}))
    budget = BudgetSpec(**file.budget.model_dump())
    prompt = PromptSpec(**file.prompt.model_dump())
    with located(source, ("token_limits",)):
        check_limits(limits)
    with located(source, ("sampling",)):
        check_sampling(sampling)
    with located(source, ("budget",)):
        check_budget(budget)
    with located(source, ("prompt",)):
        check_prompt(prompt)
    with located(source, ("runtime", "grader")):
        check_grader(file.runtime.grader)
    benchmarks = [_benchmark(source, index, entry) for index, entry in enumerate(file.benchmarks)]
    _refuse_repeats(source, "benchmarks", benchmarks)
    with located(source, ("calibration",)):
        for entry in file.calibration or ():
            calibration_of(entry, sampling.temperature)
    _refuse_repeats(source, "models", [model.path for model in file.models])
    return Grid(
        source,
        file.name,
        file.store,
        tuple(_variants(source, file)),
        limits,
        tuple(benchmarks),
        prompt,
        sampling,
        budget,
        file.runtime,
    )


def _variants(source: GridSource, file: GridFile) -> Iterator[Variant]:
    seen: dict[tuple[str, PruneSpec], int] = {}
    called: dict[tuple[str, str], PruneSpec] = {}
    for number, entry in enumerate(file.models):
        with located(source, ("models", number)):
            model = _model(entry)
        for location, spec in _specs(source, file):
            line = source.lines.get(location, 1)
            unlabelled = (model.path, replace(spec, label=None))
            if unlabelled in seen:
                first = seen[unlabelled]
                raise InputError(
                    f"{source.where(location)}: the same variant is already on line {first}, and a cell is evaluated "
                    "once; drop one of the two"
                )
            other = called.setdefault((model.path, describe(spec)), spec)
            if other != spec and (spec.label or other.label):
                first = seen[(model.path, replace(other, label=None))]
                raise InputError(
                    f"{source.where(location)}: {describe(spec)!r} is what the variant on line {first} is called, too; "
                    "give the checkpoint another label"
                )
            seen[unlabelled] = line
            yield Variant(model, spec, line)


def _model(entry: ModelEntry) -> Model:
    if entry.dtype not in DTYPES:
        raise ValueError(f"dtype {entry.dtype!r} is not one of {', '.join(DTYPES)}.{nearest(entry.dtype, DTYPES)}")
    if isinstance(entry.format, FormatEntry):
        return Model(entry.path, ThinkingFormat(**entry.format.model_dump()), entry.dtype)
    return Model(entry.path, named_format(entry.format) if entry.format else None, entry.dtype)


def _benchmark(source: GridSource, index: int, entry: BenchmarkEntry) -> BenchmarkSpec:
    with located(source, ("benchmarks", index)):
        return benchmark_of(entry)


def _specs(source: GridSource, file: GridFile) -> Iterator[tuple[Location, PruneSpec]]:
    for index, entry in enumerate(file.variants):
        location: Location = ("variants", index)
        given = {
            field.name: getattr(entry, field.name)
            for field in fields(PruneSpec)
            if getattr(entry, field.name) is not None
        }
        with located(source, location):
            nested = {
                key: _calibration(file, given.pop(key)) for key in list(given) if isinstance(given[key], BaseModel)
            }
        sources = given.pop("calibration", file.calibration) or [None]
        for name, values in given.items():
            _refuse_empty(source, (*location, name), values)
        for combination in product(*given.values()):
            knobs = dict(zip(given, combination, strict=True)) | nested
            with located(source, location):
                takes = _takes_calibration(knobs, entry)
            for calibration in sources if takes else [None]:
                with located(source, location):
                    yield location, resolve(PruneSpec(**knobs, calibration=_calibration(file, calibration)))


def _takes_calibration(knobs: dict[str, Any], entry: Any) -> bool:
    """Whether a variant is made once per source of calibration data: where the entry names some, or it needs some."""
    spec = PruneSpec(**knobs)
    return entry.calibration is not None or (spec.method in METHODS and needs_calibration(spec))


def _calibration(file: GridFile, entry: CalibrationEntry | None) -> CalibrationSpec | None:
    return None if entry is None else calibration_of(entry, file.sampling.temperature)


def _refuse_empty(source: GridSource, location: Location, values: list[Any]) -> None:
    if not values:
        raise InputError(
            f"{source.where(location)}: an empty list makes no variants; give at least one value or drop the key"
        )


def _refuse_repeats(source: GridSource, key: str, values: Sequence[str | BenchmarkSpec]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            name = value if isinstance(value, str) else f"{value.name} {value.part}".rstrip()
            raise InputError(f"{source.where((key, index))}: {name!r} appears twice; list it once")
