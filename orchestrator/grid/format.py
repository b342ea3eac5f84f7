"""The format of grid.yaml: strict pydantic models, from which the JSON Schema for editors is generated.

Only shapes and types are checked here; the specs of `pruning` and `eval` check the values.
"""

from dataclasses import fields
from operator import getitem
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from eval.built_in import BUILT_IN
from eval.formats import FORMATS
from pruning.spec import DATA_FIELDS, PruneSpec


class Strict(BaseModel):
    """Refuses unknown keys and converts nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) or value is None else [value]


Axis = BeforeValidator(_as_list, json_schema_input_type=Any)
"""A single value counts as a list of one."""


class FormatEntry(Strict):
    """A thinking format of your own."""

    name: str = "custom"
    start: str
    end: str
    early_stop: str
    prefill_start: bool = False
    newline_rule: bool = False
    bridge: str | None = None
    answer_after_eos: bool = False
    single_tokens: bool = False


class ModelEntry(Strict):
    """A model: a local folder, or a hub id (optionally `@revision`) that is in the local Hugging Face cache."""

    path: str = Field(min_length=1)
    format: str | FormatEntry | None = Field(
        None,
        description=f"How the model thinks: {', '.join(FORMATS)}, or texts of your own. Detected if left out.",
    )
    dtype: str = Field("auto", description="auto, bfloat16, float16 or float32; auto is the checkpoint's own.")


def _model(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


ModelAxis = Annotated[ModelEntry, BeforeValidator(_model, json_schema_input_type=str | ModelEntry)]


class ColumnsEntry(Strict):
    """What a file of your own calls the columns of a benchmark, where it is not that."""

    id: str | None = None
    problem: str | None = None
    answer: str | None = None
    choices: str | None = None


class BenchmarkEntry(Strict):
    """A benchmark, or a part of one."""

    name: str = Field(
        min_length=1, description=f"{', '.join(BUILT_IN)}; a JSONL, Parquet or CSV file; or NAME=FILE, a local copy."
    )
    first: int | None = Field(None, description="Only so many problems, from the top.")
    sample: int | None = Field(None, description="Only so many problems, drawn by the hash of seed and id.")
    seed: int | None = Field(None, description="Which sample; 0 if left out.")
    rows: Literal["any"] | None = Field(None, description="Accept a local copy of another size than the pinned data.")
    columns: ColumnsEntry = ColumnsEntry()


def _benchmark(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


BenchmarkAxis = Annotated[BenchmarkEntry, BeforeValidator(_benchmark, json_schema_input_type=str | BenchmarkEntry)]


OWN_TRACES = "own-traces"
"""The calibration data that the sweep makes by itself: the unpruned model's reasoning."""


class CalibrationEntry(Strict):
    """Where calibration tokens come from; see docs/pruning.md."""

    data: str = Field(
        min_length=1, description=f"A file, c4, a hub data set, or {OWN_TRACES}: what the unpruned model itself thinks."
    )
    samples: int = 128
    tokens: int = 2048
    seed: int = 0
    windows: str | None = None
    compute: str = "stored"
    problems: BenchmarkAxis | None = Field(
        None, description=f"For {OWN_TRACES}: what the model thinks about, a file or a benchmark that is not evaluated."
    )
    temperature: float | None = Field(None, description=f"For {OWN_TRACES}; sampling.temperature if left out.")
    limit: int | None = Field(
        None, description=f"For {OWN_TRACES}: the most thinking tokens of a trace; `tokens` if left out."
    )


def _calibration(value: Any) -> Any:
    return {"data": value} if isinstance(value, str) else value


CalibrationAxis = Annotated[
    CalibrationEntry, BeforeValidator(_calibration, json_schema_input_type=str | CalibrationEntry)
]


class PromptEntry(Strict):
    """The user turn: a preset (bare, boxed) or a template that contains {problem}."""

    preset: str | None = None
    template: str | None = None
    system: str | None = None


class SamplingEntry(Strict):
    """How tokens are drawn; temperature 0 is greedy."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seeds: list[int] = Field(default_factory=lambda: [0])


class BudgetEntry(Strict):
    """How a token limit is imposed on thinking."""

    mode: str
    answer_tokens: int | None = None
    wait: int = 0
    wait_text: str = "Wait"
    independent_limits: bool = False


USUAL_IN_FLIGHT = 128
"""Draws that an engine has in flight, about: less than a GPU has room for, more than a CPU decodes at once."""


class Runtime(Strict):
    """Everything that does not change an answer: engines, batching, time-outs, tracking."""

    engines: int | None = Field(
        None, ge=1, description="The most engines; one per GPU if left out, or one in all without GPUs."
    )
    slots: int | None = Field(
        None, ge=1, description="Devices shared by engines and pruning; all of the cluster's if left out."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs per engine.")
    max_sequences: int | None = Field(
        None,
        ge=1,
        description="The most sequences that an engine decodes at once, where its cache has room for them; "
        "256 if left out, or 64 without a GPU.",
    )
    in_flight: int | None = Field(
        None,
        ge=1,
        description="The most draws that an engine has in flight, where its cache has room for them; "
        "if left out, as many as it decodes at once.",
    )
    cpu_cache_mib: int = Field(256, ge=16, description="Key-value cache of an engine without a GPU.")
    gpu_memory_utilization: float = Field(0.9, gt=0, lt=1)
    commit_seconds: float = Field(5.0, gt=0, description="How often a worker commits its finished draws.")
    attempts: int = Field(
        3, ge=1, description="How often a patch, or a draw that runs alone, may fail before it is given up."
    )
    start_seconds: float = Field(900.0, gt=0, description="A worker that takes longer to start is replaced.")
    silence_seconds: float = Field(300.0, gt=0, description="A worker that reports nothing for this long is replaced.")
    stall_seconds: float = Field(
        900.0, gt=0, description="An engine that reports but generates nothing for this long is replaced."
    )
    store_seconds: float = Field(
        600.0, gt=0, description="How long to wait for a store that refuses, such as a full disk."
    )
    prune_seconds: float = Field(7200.0, gt=0, description="Time limit for pruning one patch.")
    grader: str = Field("standard", description="The grader whose verdicts the results use.")
    grader_processes: int = Field(1, ge=1)
    grader_seconds: float = Field(
        10.0,
        gt=0,
        description="Processor time per answer. An answer that uses it up twice counts as wrong, with its cause.",
    )
    tracking_uri: str | None = Field(
        None,
        description="Where MLflow records: sqlite:///file.db or http://...; mlflow.db in the store if left out.",
    )
    experiment: str = Field("prunesweep", min_length=1)
    event_log: bool = Field(
        False,
        description="Keep the event log for `replay` in any case, not only if the sweep ends abnormally.",
    )

    @property
    def draws_in_flight(self) -> int:
        """How many draws an engine is taken to have in flight before one has been asked for its cache's size."""
        return self.in_flight or USUAL_IN_FLIGHT


def _axis_type(kind: Any) -> Any:
    """`float | None` in a PruneSpec is a list of floats here, or one."""
    kinds = [k for k in get_args(kind) if k is not type(None)] if isinstance(kind, UnionType) else [kind]
    # Put together at run time, for pydantic; written as a type, no checker could follow it.
    listed: Any = GenericAlias(list, (kinds[0],))
    return getitem(Annotated, (listed | None, Axis))


_NESTED = ("influence_train", "influence_validation")
_HINTS = get_type_hints(PruneSpec)

_AXES: dict[str, Any] = {
    field.name: (_axis_type(_HINTS[field.name]), None) for field in fields(PruneSpec) if field.name not in DATA_FIELDS
}
_AXES |= {"method": (Annotated[list[str], Axis], ...)} | dict.fromkeys(_NESTED, (CalibrationAxis | None, None))
_AXES |= {"calibration": (Annotated[list[CalibrationAxis] | None, Axis], None)}

VariantEntry: Any = create_model(
    "VariantEntry",
    __base__=Strict,
    __doc__="One product of lists: every combination is a variant. The knobs are explained in docs/pruning.md.",
    **_AXES,
)


class GridFile(Strict):
    """A sweep: models × variants × token limits on benchmarks."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the sweep in the store and in MLflow."
    )
    store: str = Field(min_length=1, description="A local path, a shared mount, or s3://bucket/prefix.")
    models: list[ModelAxis] = Field(min_length=1)
    variants: list[VariantEntry] = Field(min_length=1)
    token_limits: list[int] = Field(min_length=1, description="Thinking tokens; one trace serves all of them.")
    benchmarks: list[BenchmarkAxis] = Field(
        min_length=1, description="Built-in names, or JSONL, Parquet or CSV files; whole, or a part of them."
    )
    calibration: Annotated[list[CalibrationAxis] | None, Axis] = Field(
        None,
        description="Where calibration tokens come from; every variant that needs some is made with each of a list.",
    )
    prompt: PromptEntry = PromptEntry()
    sampling: SamplingEntry
    budget: BudgetEntry
    runtime: Runtime = Runtime()
