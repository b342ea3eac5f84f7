"""The retry policy: what becomes of draws, patches and gradings whose task did not end as it should.

The numbers are in `Policy`. Draws that were lost together go on in halves, each half alone on an engine, so that a draw
that kills engines is soon alone; alone, it is given up after `Policy.attempts` losses. Failures that are nobody's fault
(a store that refuses, a worker that was asked to close) count for nothing.
"""

from collections.abc import Iterable, Iterator

from orchestrator.scheduler.events import Command, RecordFailures
from orchestrator.scheduler.state import PendingCheck, SweepState
from orchestrator.scheduler.work import ContextWork, PatchState, PatchWork, RetryGroup
from workers.failure import Failure, FailureKind
from workers.messages import PruneTask


def retry_missing(state: SweepState, check: PendingCheck, missing: tuple[int, ...]) -> Iterator[Command]:
    """Decide about the draws of a checked shard that the store does not have."""
    work, failure, policy = state.contexts[check.context_id], check.failure, state.policy
    patch = state.patches[work.context.patch_id]
    if failure.kind.unproved:
        # The engine never held the patch: no draw is to blame, but after a few engines the patch is.
        patch.unproved_swaps += 1
        _wait_again(work, missing, check.losses)
        if patch.unproved_swaps >= policy.attempts:
            yield from give_up_patch(state, patch, failure, patch.unproved_swaps)
    elif failure.kind.final and not check.worker_lost:
        yield give_up(state, work, missing, failure, check.losses + 1)
    elif _always_nan(state, patch):
        yield give_up(state, work, missing, failure, patch.nan_losses)
    elif state.stopping is not None or check.blameless or failure.kind.blameless:
        _wait_again(work, missing, check.losses)
    else:
        yield from _retry_in_halves(state, work, missing, check.losses + 1, check.alone, failure)


def _wait_again(work: ContextWork, numbers: tuple[int, ...], losses: int) -> None:
    """Let draws wait as they did before they were assigned."""
    if losses:
        work.retries.append(RetryGroup(numbers, losses))
    else:
        work.put_back(numbers)


def _retry_in_halves(
    state: SweepState, work: ContextWork, numbers: tuple[int, ...], losses: int, alone: bool, failure: Failure
) -> Iterator[Command]:
    if len(numbers) > 1:
        middle = len(numbers) // 2
        work.retries.extend((RetryGroup(numbers[:middle], losses), RetryGroup(numbers[middle:], losses)))
    elif not alone or losses < state.policy.attempts:  # a draw that had company when it was lost is tried alone first
        work.retries.append(RetryGroup(numbers, losses))
    else:
        yield give_up(state, work, numbers, failure, losses)


def lost_to_nan(state: SweepState, patch: PatchWork, probe: bool, failure: Failure) -> Iterator[Command]:
    """An engine died of NaN. `probe`: it ran one draw, to learn whether every draw of the patch gives NaN.

    A patch of which a draw has been committed is never given up for it. Engines that were at work together count once,
    for all may have met the same few draws; from then on each attempt is a probe.
    """
    if patch.sampled or (patch.suspected and not probe):
        return
    patch.nan_losses += 1
    if _always_nan(state, patch):
        yield from give_up_patch(state, patch, failure, patch.nan_losses)
    state.reindex_patch(patch)


def _always_nan(state: SweepState, patch: PatchWork) -> bool:
    """Whether enough engines died of NaN: at least one probe among them, however few attempts the policy allows."""
    return patch.suspected and patch.nan_losses >= max(2, state.policy.attempts)


def pruning_failed(
    state: SweepState, task: PruneTask, failure: Failure, blameless: bool, now: float
) -> Iterator[Command]:
    """A pruning ended without some of its patches, and not by the fault of one that it named.

    Each that was in company is then tried alone, so that a bad one cannot take others with it, and no attempt counts.
    """
    blameless = blameless or (failure.kind.blameless and failure.kind is not FailureKind.DATA)
    for patch in state.patches_left(task):
        if len(task.patches) > 1 and not blameless:
            patch.alone = True
            patch.not_before = now + (0.0 if failure.kind.of_node else state.policy.backoff_seconds)
            state.set_patch_state(patch, PatchState.OWED)
        else:
            yield from patch_failed(state, patch, failure, blameless, now)


def patch_failed(
    state: SweepState, patch: PatchWork, failure: Failure, blameless: bool, now: float
) -> Iterator[Command]:
    """A patch was not made: try again after a pause, or give up all that waits for it."""
    policy = state.policy
    if blameless or failure.kind.blameless:
        patch.not_before = now + (0.0 if failure.kind.of_node else policy.backoff_seconds)
        state.set_patch_state(patch, PatchState.OWED)
        return
    patch.attempts += 1
    if not failure.kind.final and patch.attempts < policy.attempts:
        patch.not_before = now + min(policy.longest_backoff, policy.backoff_seconds * 2 ** (patch.attempts - 1))
        state.set_patch_state(patch, PatchState.OWED)
        return
    state.set_patch_state(patch, PatchState.FAILED)
    yield from give_up_patch(state, patch, failure, patch.attempts)


def grading_failed(state: SweepState, work: ContextWork, failure: Failure, blameless: bool) -> None:
    """Let a context be graded again. After a few attempts a later run will: its answers are in the store."""
    work.grading = None
    work.grade_losses += not (blameless or failure.kind.blameless)
    work.ungraded = work.grade_losses < state.policy.attempts
    state.reindex(work)


def give_up_patch(state: SweepState, patch: PatchWork, failure: Failure, attempts: int) -> Iterator[Command]:
    """Give up all draws that wait for a patch."""
    for work in state.by_patch.get(patch.patch_id, ()):
        if work.fresh or work.retries:
            yield give_up(state, work, work.drain(), failure, attempts)
        state.reindex(work)


def give_up(
    state: SweepState, work: ContextWork, numbers: Iterable[int], failure: Failure, attempts: int
) -> RecordFailures:
    """Have draws recorded as failures. They must not wait or run any more."""
    given_up = tuple(numbers)
    state.counters.failed += len(given_up)
    state.reindex(work)
    return RecordFailures(work.context.context_id, given_up, failure, attempts)
