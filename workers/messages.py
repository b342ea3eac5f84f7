"""The values that travel between processes: tasks go out to workers, reports come back.

All of them are plain data that can be pickled and compared. Unpickling them imports neither torch nor vllm, which keeps
the driver light; so an engine's own exceptions never cross a process border, only a `Failure` does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eval.draws import DrawJob
from eval.formats import ThinkingFormat
from eval.kinds import Kind
from eval.modes import MODES
from eval.spec import BudgetSpec, SamplingSpec
from pruning.spec import PruneSpec
from workers.failure import Failure

STORED_TRACES = "own-traces:"
"""Calibration data whose name begins so is kept by the store, under the rest of it."""


@dataclass(frozen=True)
class PatchRequest:
    """One patch to be made and published to the store."""

    patch_id: str
    spec: PruneSpec
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class PruneTask:
    """Make patches of one model together, which shares passes, and publish each as it is finished."""

    task_id: str
    model: str
    """As in `Shape`."""
    patches: tuple[PatchRequest, ...]
    """The most urgent one first."""


@dataclass(frozen=True)
class Shape:
    """What an engine is started for: it can swap in every variant of this shape, and no other."""

    model: str
    """The base checkpoint: a folder's absolute path, or `org/name@commit` of a hub model."""
    layers: int
    dtype: str
    digest: str = ""
    """Of the base checkpoint, as the driver has read it; empty if nobody is to compare it."""


@dataclass(frozen=True)
class Context:
    """What all draws of one variant have in common: everything but the problem and the seed."""

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

    @property
    def cue(self) -> str:
        """What the engine writes right before a forced answer, for the model to complete; it is graded with it."""
        return MODES[self.budget.mode].cue(self.format)


@dataclass(frozen=True)
class Item:
    """One owed draw, with its origin. Reports name it by its number within its context."""

    number: int
    prompt_id: str
    benchmark: str
    job: DrawJob
    """Without `prior`: the worker reads that from the store, because a trace may be long."""
    continues: bool = False
    """The beginning of its trace, or all of it, is in the store."""


@dataclass(frozen=True)
class Shard:
    """The unit of evaluation work: some of the owed draws of one context."""

    task_id: str
    context: Context
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Gold:
    """The correct answer to one prompt. `gold_id` names its content, so a corrected answer is graded anew."""

    prompt_id: str
    gold_id: str
    answer: str
    kind: Kind
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class GradeTask:
    """Grade those answers of one context in the store that have no grade."""

    task_id: str
    context_id: str
    answer_context_id: str
    golds: tuple[Gold, ...]
    cue: str = ""
    """`Context.cue`: what forced answers complete."""

    @classmethod
    def of(cls, task_id: str, context: Context, golds: Iterable[Gold]) -> "GradeTask":
        """Grade the answers of `context` against `golds`."""
        return cls(task_id, context.context_id, context.answer_context_id, tuple(golds), context.cue)


Task = PruneTask | Shard | GradeTask


@dataclass(frozen=True)
class Committed:
    """Draws were committed: they are in the store now."""

    task_id: str
    numbers: tuple[int, ...]
    lengths: tuple[int, ...]
    """The length of each draw's whole trace, in tokens."""
    trace_tokens: int
    """How many were generated for traces. In budget mode `none` the trace is the whole response."""
    answer_tokens: int
    """How many were generated after traces."""
    cached_tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Heartbeat:
    """The worker is alive."""

    task_id: str
    tokens: int = 0
    """How many tokens an engine has generated since it started, which shows whether it makes progress."""


@dataclass(frozen=True)
class WantsMore:
    """The engine could take more draws of the variant that it holds: it will soon have begun all that it was given."""

    task_id: str


@dataclass(frozen=True)
class StoreBlocked:
    """The worker is healthy and waits for the store, because its disk is full, say."""

    task_id: str
    failure: Failure


@dataclass(frozen=True)
class WeightsLoaded:
    """The engine now holds a variant's weights and has proved it."""

    task_id: str
    patch_id: str
    seconds: float
    canary_error: float


@dataclass(frozen=True)
class Rejected:
    """Draws that failed for a reason of their own and are given up: bad tokens, NaN, a prompt too long."""

    task_id: str
    numbers: tuple[int, ...]
    failure: Failure


@dataclass(frozen=True)
class PatchMade:
    """A patch was made: it is in the store now."""

    task_id: str
    patch_id: str
    sparsity: float
    seconds: float


@dataclass(frozen=True)
class PatchFailed:
    """A patch was not made, for a reason of its own; its task goes on with the others."""

    task_id: str
    patch_id: str
    failure: Failure


@dataclass(frozen=True)
class Graded:
    """Grades of some answers were committed."""

    task_id: str
    context_id: str
    answers: int


@dataclass(frozen=True)
class TaskEnded:
    """The task ended without a failure."""

    task_id: str


@dataclass(frozen=True)
class TaskFailed:
    """The task failed; its worker is healthy and can take another."""

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
    | PatchFailed
    | Graded
    | TaskEnded
    | TaskFailed
)


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker tells about itself when it is ready; never part of an identity."""

    worker: str
    host: str
    pid: int
    log: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
