"""Why something did not happen."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """Why something did not happen. A failure is data: it is recorded, counted and shown, and never scored."""

    kind: str
    """What failed, from a closed list: engine-lost, engine-error, proof, nan, prune, bad-input, store, hang, ..."""
    cause: str
    """One line for a person: what happened, in the words of what raised it."""
    log: str = ""
    """Where the worker's own log tail can be read, or empty."""
