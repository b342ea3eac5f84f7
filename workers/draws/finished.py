"""Finished draws on their way into the store: a draw with all its answers, or nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from workers.failure import Failure, FailureKind
from workers.messages import Committed, StoreBlocked
from workers.rows.tables import DrawRow
from workers.store import StoreUnavailable, WorkerStore


@dataclass(frozen=True)
class _Entry:
    task_id: str
    number: int
    row: DrawRow
    length: int
    """Of its whole trace, in tokens."""
    answer_tokens: int


class FinishedDraws:
    """Draws that are not committed yet. While the store refuses them they are kept."""

    def __init__(self, store: WorkerStore) -> None:
        self._store = store
        self._entries: list[_Entry] = []
        self._prompt_tokens = self._cached_tokens = 0
        self.blocked: tuple[float, Failure] | None = None
        """Since when commits have failed, and why."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, task_id: str, number: int, row: DrawRow, answer_tokens: int) -> None:
        length = row.start + len(row.trace_ids)
        self._entries.append(_Entry(task_id, number, row, length, answer_tokens))

    def count_prompt(self, tokens: int, cached: int) -> None:
        """An ask's prompt had so many tokens, of which so many were in the prefix cache; reported with a commit."""
        self._prompt_tokens += tokens
        self._cached_tokens += cached

    def commit(self) -> Iterator[Committed | StoreBlocked]:
        """Commit them, one context after the other. If the store is unavailable, keep the rest."""
        by_context: dict[str, list[_Entry]] = {}
        for entry in self._entries:
            by_context.setdefault(entry.row.context_id, []).append(entry)
        for entries in by_context.values():
            try:
                self._store.commit_draws([entry.row for entry in entries])
            except StoreUnavailable as error:
                since = self.blocked[0] if self.blocked is not None else monotonic()
                self.blocked = (since, Failure(FailureKind.STORE, str(error)))
                yield StoreBlocked(entries[0].task_id, self.blocked[1])
                return
            self.blocked = None
            done = {id(entry) for entry in entries}
            self._entries = [entry for entry in self._entries if id(entry) not in done]
            yield from self._committed(entries)

    def _committed(self, entries: list[_Entry]) -> Iterator[Committed]:
        by_task: dict[str, list[_Entry]] = {}
        for entry in entries:
            by_task.setdefault(entry.task_id, []).append(entry)
        for task_id, group in by_task.items():
            yield Committed(
                task_id,
                tuple(entry.number for entry in group),
                tuple(entry.length for entry in group),
                trace_tokens=sum(len(entry.row.trace_ids) for entry in group),
                answer_tokens=sum(entry.answer_tokens for entry in group),
                cached_tokens=self._cached_tokens,
                prompt_tokens=self._prompt_tokens,
            )
            self._prompt_tokens = self._cached_tokens = 0
