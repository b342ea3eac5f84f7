"""Why the core decided something: read off its state before and after the event, never off stored text."""

from collections.abc import Iterator, Sequence

from orchestrator.console import plural
from orchestrator.explain.replay import ReplayStep
from orchestrator.explain.replay_words import Names
from orchestrator.scheduler.events import (
    Assign,
    FindMissing,
    Finish,
    Kill,
    MissingFound,
    NodeDraining,
    RecordFailures,
    Reported,
    Retire,
    Role,
    ShardNumbers,
    StartWorker,
)
from orchestrator.scheduler.fleet import Phase, WorkerState
from orchestrator.scheduler.state import SweepState
from orchestrator.scheduler.work import PatchState
from workers.messages import GradeTask, PruneTask


def reason(step: ReplayStep, index: int, names: Names) -> str:
    """Why the core gave command number `index` of a step."""
    before, after, command = step.before, step.after, step.commands[index]
    match command:
        case StartWorker():
            return _why_started(step, index, names)
        case Assign(worker, ShardNumbers() as shard):
            return _why_shard(step, index, worker, shard, names)
        case Assign(_, PruneTask(patches=patches)):
            return _why_patches(before, after, [one.patch_id for one in patches], names)
        case Assign(_, GradeTask(context_id=context_id)):
            running = len(after.contexts[context_id].running)
            shards = f"{running} still run, and no context without any waits" if running else "none runs any more"
            return f"it has answers without a grade; of its shards {shards}"
        case FindMissing(shard):
            check = after.pending_checks[shard.task_id]
            return f"{check.failure.kind}: the worker may have stored some that it did not report"
        case RecordFailures(failure=failure, attempts=attempts):
            final = attempts < after.policy.attempts
            why = "it would fail everywhere" if final else f"all {plural(attempts, 'attempt')} failed"
            return f"{why}: {failure.kind}: {failure.cause}"
        case Retire(worker):
            return _why_retired(step, before.fleet.get(worker), names)
        case Kill(failure=failure):
            return failure.cause
        case Finish():
            return "no worker and no check of the store is left"
    raise AssertionError(command)


def _why_started(step: ReplayStep, index: int, names: Names) -> str:
    """Work is assigned before workers are started, so they are started for what still waits after the event."""
    state, command = step.after, step.commands[index]
    assert isinstance(command, StartWorker)
    started = [one for one in step.commands[index:] if isinstance(one, StartWorker) and one.role is command.role]
    if command.role is Role.PRUNE:
        pruners = len(state.fleet.of(Role.PRUNE, Phase.STARTING, Phase.IDLE, Phase.BUSY)) - len(started)
        return f"variants to prune: {len(state.unmade)}, devices that prune: {pruners}"
    if command.shape is None:
        return f"there is no grader; contexts that can be graded: {len(state.gradable)}"
    ready, coming = list(state.runnable.get(command.shape, ())), state.upcoming(command.shape)
    draws = sum(work.waiting_draws for name in [*ready, *coming] for work in state.by_patch[name])
    engines = state.fleet.shapes.get(command.shape, 0) - sum(one.shape == command.shape for one in started)
    return (
        f"{plural(draws, 'draw')} wait for engines of {names.shape(command.shape)}, of which there are {engines}; "
        f"variants ready for them: {len(ready)}, to be pruned: {len(coming)}"
    )


def _why_shard(step: ReplayStep, index: int, worker: str, shard: ShardNumbers, names: Names) -> str:
    contexts = step.after.contexts
    patch_id = contexts[shard.context_id].context.patch_id
    run = contexts[shard.context_id].running.get(shard.task_id)
    tasks = [command.task for command in step.commands[index:] if isinstance(command, Assign)]
    given = [task for task in tasks if isinstance(task, ShardNumbers)]
    # What waits after the event, plus what this command and those after it assigned.
    waited = sum(work.waiting_draws for work in step.after.by_patch[patch_id])
    waited += sum(len(one.numbers) for one in given if contexts[one.context_id].context.patch_id == patch_id)
    known, now = step.before.fleet.get(worker), step.after.fleet.get(worker)
    engines = step.before.fleet.engines_of.get(patch_id, 0)
    wait = f"{names.patch(patch_id)} had {plural(waited, 'waiting draw')} and {plural(engines, 'engine')}"
    if known is None or known.patch_id is None:
        why = f"{worker} has no weights yet; {wait}"
    elif known.patch_id != patch_id:
        left = sum(work.waiting_draws for work in step.before.by_patch[known.patch_id])
        why = f"{worker} holds {names.patch(known.patch_id)}, of which {plural(left, 'draw')} wait; {wait}"
    elif now is not None and len(now.tasks) > 1:
        why = f"{worker} has these weights and will soon have begun all of its draws; {wait}"
    else:
        why = f"{worker} has these weights and is idle; {wait}"
    again = f"; they were lost {plural(run.losses, 'time')}, so they run alone" if run and run.losses else ""
    return why + again


def _why_patches(before: SweepState, after: SweepState, patch_ids: Sequence[str], names: Names) -> str:
    first, shape = after.patches[patch_ids[0]], after.shape_of(patch_ids[0])
    engines, ready = before.fleet.shapes.get(shape, 0), len(before.runnable.get(shape, ()))
    attempt = f"attempt {first.attempts + 1}; " if first.attempts else ""
    why = "it was lost with others, so it is made alone; " if first.alone else ""
    more = f"; {len(patch_ids) - 1} more share its passes" if patch_ids[1:] else ""
    if not engines:
        return f"{attempt}{why}its shape ({names.shape(shape)}) has no engine yet{more}"
    return f"{attempt}{why}the most urgent: engines of its shape: {engines}, variants ready for them: {ready}{more}"


def _why_retired(step: ReplayStep, known: WorkerState | None, names: Names) -> str:
    after = step.after
    if isinstance(step.event, NodeDraining) and known is not None and known.name in step.event.workers:
        return f"{step.event.reason}"
    if after.stopping is not None:
        return f"the sweep stops: {after.stopping}"
    if not after.unfinished:
        return "nothing is owed any more"
    if known is None or known.role is Role.GRADE:
        return "what is still owed cannot be done"
    if known.role is Role.PRUNE:
        return f"variants that wait to be pruned: {len(after.owed_patches())}; fewer devices are needed for that"
    if known.shape is not None and not after.runnable.get(known.shape) and not after.upcoming(known.shape):
        return f"no draw waits for {names.shape(known.shape)}, and none will"
    if any(after.runnable.values()):
        return f"idle for {step.now - known.since:.0f} s, while draws of another shape have no engine"
    return "no engine has a variant to evaluate, and no device is free to prune the next"


# --- changes without a command ----------------------------------------------------------------------------------------


def changes(step: ReplayStep, names: Names) -> list[str]:
    """What the event changed besides the commands, as far as it matters for what happens next."""
    return [*_redirected(step, names), *_idle(step, names), *_found(step, names), *_not_made(step, names)]


def _redirected(step: ReplayStep, names: Names) -> Iterator[str]:
    if step.before.fleet.engines_of == step.after.fleet.engines_of:
        return
    given = {command.worker for command in step.commands if isinstance(command, Assign)}
    for known in step.after.fleet:
        old = step.before.fleet.get(known.name)
        if old is not None and old.patch_id != known.patch_id and known.name not in given:
            patch, last = names.patch(old.patch_id), names.patch(known.patch_id)
            yield f"{known.name} switches from {patch} to {last} after its shards: {last} would end last"


def _idle(step: ReplayStep, names: Names) -> Iterator[str]:
    if not isinstance(step.event, Reported) or (known := step.after.fleet.get(step.event.worker)) is None:
        return
    old = step.before.fleet.get(known.name)
    if known.phase is not Phase.IDLE or old is None or old.phase is Phase.IDLE or known.role is not Role.ENGINE:
        return
    assert known.shape is not None
    ready, coming = step.after.runnable.get(known.shape, {}), step.after.upcoming(known.shape)
    waiting = sum(work.waiting_draws for name in ready for work in step.after.by_patch[name])
    waits = f"only {plural(waiting, 'draw')} wait" if waiting else "no draw waits"
    yield f"{known.name} is idle: {waits} for engines of its shape; variants to be pruned: {len(coming)}"


def _found(step: ReplayStep, names: Names) -> Iterator[str]:
    if isinstance(step.event, MissingFound) and (check := step.before.pending_checks.get(step.event.task_id)):
        again = len(step.event.missing.intersection(check.numbers))
        if again and step.after.stopping is None:
            yield f"{plural(again, 'draw')} of {names.context(check.context_id)} wait again"


def _not_made(step: ReplayStep, names: Names) -> Iterator[str]:
    """Patches that were in the making before the event, and are owed again or given up."""
    limit = step.after.policy.attempts
    for name, old in step.before.patches.items():
        patch = step.after.patches[name]
        if old.making is None or patch.making == old.making or patch.state is PatchState.STORED:
            continue
        failed = f"{patch.attempts} of {limit} attempts failed"
        if patch.alone and not old.alone:
            yield f"{names.patch(name)} is tried again, alone: nobody knows which of those lost with it was at fault"
        elif patch.state is PatchState.FAILED:
            yield f"{names.patch(name)} is given up: {failed}"
        else:
            yield f"{names.patch(name)} is tried again in {max(0.0, patch.not_before - step.now):.0f} s: {failed}"
