"""Workers as Ray actors: the only import of ray.

Ray's own retries and restarts are off: they are used up within seconds of a node's death, and the scheduler must know
of every loss anyway. An actor works in one thread and listens in another, so that it can be given tasks ahead of time
and asked to stop. The worker is built in the thread that it works in, which is not the actor's main thread: an engine's
device streams belong to the thread that built it (docs/engine.md).
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

# Read when ray is imported. A local Ray needs no token; a Ray that the user started keeps the user's mode.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import NODE_ID_LABEL_KEY
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.backend import Devices
from orchestrator.scheduler.events import Event, NodeDraining, Reported, WorkerLost, WorkerReady
from orchestrator.store.lease import Lease
from workers.failure import Failure, FailureKind
from workers.messages import Report, Task, WorkerInfo
from workers.parent_death import die_with
from workers.recipes import GradeRecipe, Recipe
from workers.store import StoreError
from workers.worker import Inbox, Worker, WorkerFault, serve

T = TypeVar("T")

FORWARDED = ("HF_HUB_OFFLINE", "HF_HOME", "HF_ENDPOINT", "PRUNESWEEP_CACHE", "VLLM_CACHE_ROOT", "AWS_ENDPOINT_URL")
"""Environment variables that workers need, also where the cluster was started without them."""

DRAIN_POLL_SECONDS = 2.0
"""How often Ray is asked which nodes are draining. It answers in a millisecond; the shortest spot notice is 30 s."""


def cores_per_worker(wanted: str | None, node_cpus: Sequence[int]) -> int:
    """The cores of an engine or pruner without a GPU: `wanted`, the user's OMP_NUM_THREADS, as far as a node has them.

    One where the user says nothing, so that an engine and a pruner run beside each other.
    """
    threads = int(wanted) if wanted and wanted.isdecimal() else 1
    return max(1, min(threads, max(node_cpus, default=1)))


class Host:
    """The actor: builds a worker in its own process and has it serve one inbox until it ends.

    Ray runs `__init__` in the process's main thread, and every method but those of the group "control" in one other.
    """

    def __init__(self, name: str, recipe: Recipe, lease: Lease | None) -> None:
        die_with(os.getppid())  # the raylet: Ray's own check lets a worker commit for seconds after its node is lost
        self._name, self._recipe, self._lease = name, recipe, lease
        self._inbox = Inbox()
        self._worker: Worker | None = None

    def build(self) -> tuple[str, WorkerInfo | Failure]:
        """Build the worker, in the thread that serves it; returns the id of its node, and its own description.

        Returns why instead if it cannot be built: an exception of vllm's would have the driver import vllm.
        """
        log, node = _own_log(), ray.get_runtime_context().get_node_id()
        if self._lease is not None:
            if (failure := _other_store(self._lease)) is not None:
                return node, replace(failure, log=log)
            threading.Thread(target=_die_with_lease, args=(self._lease,), name="lease", daemon=True).start()
        try:
            self._worker = self._recipe.build(self._name, log)
            return node, self._worker.facts()
        except WorkerFault as fault:
            traceback.print_exc()  # into its log
            return node, replace(fault.failure, log=log)
        except Exception as error:  # a worker that cannot start must be reported with its cause
            traceback.print_exc()
            return node, Failure(FailureKind.WORKER_ERROR, _line(error), log)

    def serve(self) -> Iterator[Report]:
        """The reports of the worker that was built before; none if that failed, which the backend has been told."""
        if self._worker is None:
            return
        # Ray calls send() on its generators; with `yield from`, the iterator inside would need a send(), too.
        for report in serve(self._worker, self._inbox):  # noqa: UP028 - see above
            yield report

    def put(self, task: Task) -> None:
        self._inbox.put(task)

    def close(self) -> None:
        self._inbox.close()


def _each_node(resource: str) -> list[int]:
    """How many of a resource each living node has."""
    return [int(node["Resources"].get(resource, 0)) for node in ray.nodes() if node["Alive"]]


def _other_store(lease: Lease) -> Failure | None:
    """Why this machine is of no use, if it does not see the driver's claim in the store."""
    with suppress(StoreError):  # unreachable now: that is waited for when something is to be committed
        if not lease.in_sight():
            cause = (
                f"{socket.gethostname()}: store {lease.store.uri} is another one here, without the driver's claim; "
                "mount the same folder under the same path on every machine, or use s3://"
            )
            return Failure(FailureKind.OTHER_STORE, cause)
    return None


def _die_with_lease(lease: Lease) -> None:
    """Kill this process once another driver has taken over, since that driver makes the same draws."""
    other: str | None = None
    while other is None:
        with suppress(StoreError):  # then nothing can be committed either
            other = lease.taken_by()
        time.sleep(0 if other else lease.beat_seconds)
    print(f"this worker's driver has lost its lease to {other}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def _has_room(cpus: int, gpus: int, avoid: Sequence[str]) -> bool:
    """Whether a living node that is not to be avoided has so many devices, in use or not."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in avoid]
    return any(n["Resources"].get("CPU", 0) >= cpus and n["Resources"].get("GPU", 0) >= gpus for n in nodes)


def _forwarded() -> dict[str, str]:
    """FORWARDED, less what the submitted job's own runtime environment sets: Ray refuses duplicates."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or "{}")
    already_set = (job.get("runtime_env") or {}).get("env_vars") or {}
    return {name: os.environ[name] for name in FORWARDED if name in os.environ and name not in already_set}


def _own_log() -> str:
    """The file to which Ray writes this process's standard error."""
    context = ray.get_runtime_context()
    logs = os.path.join(ray._private.worker.global_worker.node.get_session_dir_path(), "logs")
    return os.path.join(logs, f"worker-{context.get_worker_id()}-{context.get_job_id()}-{os.getpid()}.err")


@dataclass
class _Actor:
    handle: Any
    ready: Any
    reports: Any
    log: str = ""
    node: str = ""
    """Known once it is ready."""
    draining: bool = False
    """Whether `NodeDraining` was reported for it."""


@dataclass
class RayBackend:
    """A Ray cluster, joined or started. Construct it with `RayBackend.connect`."""

    _actors: dict[str, _Actor] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)
    _polled_at: float = 0.0
    _lease: Lease | None = None

    @classmethod
    def connect(cls, lease: Lease | None = None) -> "RayBackend":
        """Join the cluster that RAY_ADDRESS names (a submitted job's own), or start one on this machine.

        Workers exit when another driver takes over `lease`.
        """
        forwarded = _forwarded()
        address = os.environ.get("RAY_ADDRESS")
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": forwarded} if forwarded else None,
            **({} if address else {"include_dashboard": False}),
        )
        return cls(_lease=lease)

    def devices(self) -> Devices:
        gpus, cpus, cores = tuple(_each_node("GPU")), tuple(_each_node("CPU")), self._cores()
        names = tuple(node["NodeID"] for node in ray.nodes() if node["Alive"])
        return Devices(max(1, sum(count // cores for count in cpus)), gpus, cpus, names)

    def _cores(self) -> int:
        """The cores that an engine or a pruner takes."""
        if any(_each_node("GPU")):
            return 1
        return cores_per_worker(os.environ.get("OMP_NUM_THREADS"), _each_node("CPU"))

    def start(self, worker: str, recipe: Recipe, gpus: int, avoid: Sequence[str] = ()) -> None:
        # A grader mostly waits and needs no core of its own; an engine and a pruner do. Without a GPU they compute in
        # as many threads as they have cores: OpenMP's threads spin, and collapse where they share one.
        cpus = 0 if isinstance(recipe, GradeRecipe) else self._cores()
        environment = {"OMP_NUM_THREADS": str(cpus)} if cpus and not gpus else {}
        if avoid and not _has_room(cpus, gpus, avoid):
            failure = Failure(FailureKind.SOURCE, "no node of the cluster is left that need not be avoided")
            self._events.append(WorkerLost(worker, failure))
            return
        actor = ray.remote(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            concurrency_groups={"control": 1},
            runtime_env={"env_vars": environment} if environment else None,
            label_selector={NODE_ID_LABEL_KEY: f"!in({','.join(avoid)})"} if avoid else None,
        )(Host)
        handle = actor.remote(worker, recipe, self._lease)
        self._actors[worker] = _Actor(
            handle, ready=handle.build.remote(), reports=handle.serve.options(num_returns="streaming").remote()
        )

    def assign(self, worker: str, task: Task) -> None:
        if (actor := self._actors.get(worker)) is not None:
            actor.handle.put.options(concurrency_group="control").remote(task)

    def retire(self, worker: str) -> None:
        if (actor := self._actors.get(worker)) is not None:
            actor.handle.close.options(concurrency_group="control").remote()

    def kill(self, worker: str, failure: Failure) -> None:
        if (actor := self._actors.get(worker)) is not None:
            ray.kill(actor.handle)
            self._lose(worker, replace(failure, log=failure.log or actor.log))

    def poll(self, seconds: float) -> Sequence[Event]:
        if (now := time.monotonic()) - self._polled_at >= DRAIN_POLL_SECONDS:
            self._polled_at = now
            self._events += self._draining()
        if not self._events:
            self._collect(seconds)
        events, self._events = self._events, []
        return events

    def _draining(self) -> Iterator[NodeDraining]:
        """One event for the workers of each node that is draining, once per worker.

        Ray learns of it from its autoscaler, from a SIGTERM to the node (RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S), or
        from `ray drain-node` in a cloud's hook for spot notices. It places nothing new on such a node, so that
        replacements start elsewhere.
        """
        draining_nodes = ray._private.state.state.get_draining_nodes  # outside the try: a removed API must fail loudly
        try:
            draining = draining_nodes()
        except Exception:  # Ray's head does not answer (Ray raises many types then); it is asked again soon
            return
        for node, deadline in draining.items():
            workers = [name for name, actor in self._actors.items() if actor.node == node and not actor.draining]
            for name in workers:
                self._actors[name].draining = True
            if workers:
                at = f" and ends by {time.strftime('%H:%M:%S', time.localtime(deadline / 1000))}" if deadline else ""
                yield NodeDraining(tuple(workers), f"their node {node[:8]} is draining{at}")

    def _collect(self, seconds: float) -> None:
        waiting: dict[Any, str] = {}
        for worker, actor in self._actors.items():
            waiting[actor.ready if actor.ready is not None else actor.reports] = worker
        if not waiting:
            time.sleep(seconds)
            return
        futures = list(waiting)
        done, _ = ray.wait(futures, num_returns=len(futures), timeout=0, fetch_local=False)
        if not done:
            done, _ = ray.wait(futures, num_returns=1, timeout=seconds, fetch_local=False)
        for future in done:
            self._hear(waiting[future], future)

    def _hear(self, worker: str, future: Any) -> None:
        actor = self._actors.get(worker)
        if actor is None:
            return
        try:
            if future is actor.ready:
                facts: WorkerInfo | Failure
                actor.node, facts = ray.get(future)
                if isinstance(facts, Failure):
                    ray.kill(actor.handle)
                    self._lose(worker, facts, actor.node)
                    return
                actor.ready, actor.log = None, facts.log
                self._events.append(WorkerReady(worker, facts, actor.node))
            else:
                self._take_report(worker, actor)
        except WorkerFault as fault:
            ray.kill(actor.handle)
            self._lose(worker, fault.failure)
        except RayActorError as error:
            ray.kill(actor.handle)  # it may only be unreachable, and must not keep its device
            self._lose(worker, Failure(FailureKind.WORKER_LOST, _line(error), actor.log))
        except (RayTaskError, RayError) as error:
            # A bug, ours or a library's: the process lives, in an unknown state.
            ray.kill(actor.handle)
            self._lose(worker, Failure(FailureKind.WORKER_ERROR, _line(error), actor.log))

    def _take_report(self, worker: str, actor: _Actor) -> None:
        try:
            report: Report = ray.get(next(actor.reports), timeout=60)
        except StopIteration:
            ray.kill(actor.handle)
            self._lose(worker, Failure(FailureKind.RETIRED, "closed as asked", actor.log))
        except GetTimeoutError:
            ray.kill(actor.handle)
            self._lose(worker, Failure(FailureKind.WORKER_LOST, "a report was announced and never came", actor.log))
        else:
            self._events.append(Reported(worker, report))

    def _lose(self, worker: str, failure: Failure, node: str = "") -> None:
        if self._actors.pop(worker, None) is not None:
            self._events.append(WorkerLost(worker, failure, node))

    def close(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors.clear()
        ray.shutdown()


def _line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).strip().splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else 'no message'}"


def run_on_host(host: str, function: Callable[..., T], *arguments: Any) -> T:
    """Call `function` on the machine `host` of the cluster that RAY_ADDRESS names.

    For the drill, which has no backend. Raises ValueError if no living node has that name.
    """
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
    try:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerHostname"] == host]
        if not nodes:
            raise ValueError(f"no living node of the cluster is called {host}; its workers are gone with it")
        affinity = NodeAffinitySchedulingStrategy(nodes[0], soft=False)
        answer: T = ray.get(
            ray.remote(num_cpus=0, scheduling_strategy=affinity)(function).remote(*arguments), timeout=60
        )
        return answer
    finally:
        ray.shutdown()
