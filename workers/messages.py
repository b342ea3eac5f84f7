"""The typed values that travel between processes: tasks go out to workers, reports come back.

Everything here is plain data: it pickles, it compares, and unpickling it imports neither torch nor vllm, so that the
driver stays light. A worker never raises an engine's own exception across a process border; it sends a `Failure`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.draws import DrawJob
from eval.formats import ThinkingFormat
from eval.kinds import Kind
from eval.spec import BudgetSpec, SamplingSpec
from pruning.spec import PruneSpec
from workers.failure import Failure


@dataclass(frozen=True)
class PruneTask:
    """Make one patch and publish it to the store."""

    task_id: str
    model: str
    spec: PruneSpec
    patch_id: str
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """What an engine is built for. Variants of one shape are reached by swapping weights; others need a new engine."""

    model: str
    layers: int
    dtype: str


@dataclass(frozen=True)
class Context:
    """Everything that the draws of one variant have in common, beside the problem and the seed."""

    context_id: str
    answer_context_id: str
    shape: Shape
    patch_id: str
    sampling: SamplingSpec
    budget: BudgetSpec
    format: ThinkingFormat | None
    context_length: int
    variant: str
    """A label for people; never part of an identity."""


@dataclass(frozen=True)
class Item:
    """One owed draw, with the place it came from. Reports name it by its number within its context."""

    number: int
    prompt_id: str
    benchmark: str
    job: DrawJob
    """Without its `prior`: a trace may be long, so a worker reads it from the store."""
    continues: bool = False
    """The store holds the beginning of its trace, or all of it."""


@dataclass(frozen=True)
class Shard:
    """The unit of evaluation work: one context and a slice of its owed draws."""

    task_id: str
    context: Context
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Gold:
    """The truth for one prompt. `gold_id` names its content, so that a corrected answer is graded anew."""

    prompt_id: str
    gold_id: str
    answer: str
    kind: Kind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class GradeTask:
    """Bring the grades of one context up to date: grade what the store holds of it and has no grade for."""

    task_id: str
    context_id: str
    answer_context_id: str
    golds: tuple[Gold, ...]


Task = PruneTask | Shard | GradeTask


@dataclass(frozen=True)
class Committed:
    """Draws that are in the store now."""

    task_id: str
    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    """The length of each draw's whole trace, in tokens."""
    trace_tokens: int
    answer_tokens: int
    cached_tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Heartbeat:
    """Proof of life."""

    task_id: str
    tokens: int = 0
    """An engine's proof of progress: how many it has generated since it started."""


@dataclass(frozen=True)
class WantsMore:
    """The engine could take further draws of the variant it holds: fewer wait in it than it will soon begin."""

    task_id: str


@dataclass(frozen=True)
class StoreBlocked:
    """The worker is well and waits for something outside of it, such as a full store."""

    task_id: str
    failure: Failure


@dataclass(frozen=True)
class WeightsLoaded:
    """The engine now holds a variant's weights, and has proved it."""

    task_id: str
    patch_id: str
    seconds: float
    canary_error: float


@dataclass(frozen=True)
class Rejected:
    """Draws that this worker could not make although its engine is well: bad tokens, NaN, a prompt too long."""

    task_id: str
    numbers: tuple[int, ...]
    failure: Failure


@dataclass(frozen=True)
class PatchMade:
    """A patch is in the store now."""

    task_id: str
    patch_id: str
    sparsity: float
    seconds: float


@dataclass(frozen=True)
class Graded:
    """Grades that are in the store now."""

    task_id: str
    context_id: str
    answers: int


@dataclass(frozen=True)
class TaskEnded:
    """The task is over, in order."""

    task_id: str


@dataclass(frozen=True)
class TaskFailed:
    """The task failed and its worker is well."""

    task_id: str
    failure: Failure


Report = (
    Committed
    | Heartbeat
    | WantsMore
    | StoreBlocked
    | WeightsLoaded
    | Rejected
    | PatchMade
    | Graded
    | TaskEnded
    | TaskFailed
)


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself when it is ready: recorded beside results, never part of an identity."""

    worker: str
    host: str
    pid: int
    log: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
