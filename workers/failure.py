"""Why something failed: the closed list of kinds, and one failure with its cause."""

from dataclasses import dataclass
from enum import StrEnum


class FailureKind(StrEnum):
    """What failed. The values are stored in the `failures` table: never change one.

    Rows of older stores may hold kinds that are no longer in use (`nan-logits`), so a stored kind is read as a string.
    """

    ENGINE_LOST = "engine-lost"
    """A process of the engine died."""
    ENGINE_ERROR = "engine-error"
    """The engine raised an error that tells nothing more specific."""
    WORKER_LOST = "worker-lost"
    """The worker's process or its machine is gone."""
    WORKER_ERROR = "worker-error"
    """The worker raised an error that nobody foresaw, or could not start."""
    RETIRED = "retired"
    """The worker closed because it was asked to."""
    HANG = "hang"
    """The worker did not start in time, fell silent, or generated nothing for too long."""
    OUT_OF_MEMORY = "out-of-memory"
    """The host or the device ran out of memory."""
    STORE = "store"
    """The store could not be read or written."""
    PRUNE = "prune"
    """Pruning failed for a reason that another attempt may not meet."""
    PROOF = "proof"
    """After a swap the engine could not prove that it holds the variant's weights. No sample was made."""
    CANARY = "canary"
    """After a swap every tensor is the variant's, and still the engine computes something else than was recorded, by
    more than its arithmetic explains. No sample was made."""
    NAN = "nan"
    """The variant's weights give NaN, on the canary prompt or while decoding."""
    SOURCE = "source"
    """The worker's machine cannot read the model that the driver read, or has another by that name."""
    DATA = "data"
    """The worker's machine cannot read a patch's calibration data or checkpoint, or has others than the driver by that
    name."""
    OTHER_STORE = "other-store"
    """What the worker's machine has under the store's address is not the driver's store."""
    BAD_INPUT = "bad-input"
    """A patch or a draw that cannot be made: an impossible specification, a prompt too long, tokens out of range."""

    @property
    def final(self) -> bool:
        """Every attempt would fail alike, so a task that fails like this on a healthy worker is not tried again."""
        return self in (FailureKind.CANARY, FailureKind.NAN, FailureKind.BAD_INPUT)

    @property
    def blameless(self) -> bool:
        """Neither a draw, a patch nor a grading is at fault, so the failure never counts towards giving one up."""
        return self in (FailureKind.STORE, FailureKind.RETIRED) or self.of_node

    @property
    def of_node(self) -> bool:
        """The machine is at fault: it is avoided, and another may do what it could not."""
        return self in (FailureKind.SOURCE, FailureKind.DATA, FailureKind.OTHER_STORE)

    @property
    def of_store(self) -> bool:
        """The store is at fault; if such failures persist, the sweep stops."""
        return self is FailureKind.STORE

    @property
    def unproved(self) -> bool:
        """The engine never held the patch, so no draw is at fault; the patch may be."""
        return self is FailureKind.PROOF


@dataclass(frozen=True)
class Failure:
    """Why something failed. A failure is data: it is recorded, counted and shown, and never scored."""

    kind: FailureKind
    cause: str
    """One line for a person: what happened, in the words of what raised it."""
    log: str = ""
    """Path of the worker's log, or empty."""
