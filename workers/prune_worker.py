"""Makes patches: prunes a checkpoint, and publishes each patch to the store as it is finished."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pruning.files import unfinished_folder
from pruning.model.hub import HubUnreachable
from pruning.patch.manifest import read_manifest
from pruning.prune import PruneJob, prune_each
from pruning.spec import DATA_FIELDS, CalibrationSpec
from workers.failure import Failure, FailureKind
from workers.messages import (
    STORED_TRACES,
    PatchFailed,
    PatchMade,
    PatchRequest,
    PruneTask,
    Report,
    Task,
    TaskEnded,
    TaskFailed,
    WorkerInfo,
)
from workers.sources import SourceFault, Sources, check_sources
from workers.store import StoreError, WorkerStore
from workers.store_retry import retry_while_unavailable
from workers.worker import Inbox


class PruneWorker:
    """One device that prunes, one task at a time."""

    def __init__(self, name: str, store: WorkerStore, scratch: Path, log: str = "", store_seconds: float = 0.0) -> None:
        """`store_seconds`: how long an unavailable store is retried."""
        self._name, self._store, self._scratch, self._log = name, store, scratch, log
        self._store_seconds = store_seconds
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def facts(self) -> WorkerInfo:
        settings = {"device": self._device, "torch": torch.__version__}
        return WorkerInfo(self._name, socket.gethostname(), os.getpid(), self._log, settings)

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Make the patches of a task; a closed inbox ends it after the one in the making.

        A patch fails with "bad-input", which is final, or with "data" if this machine lacks its data or checkpoint. The
        task fails with "bad-input" for what its patches share, with "source" or "data" if this machine lacks what the
        driver has read; or with "store" or "prune", which may succeed when tried again.
        """
        assert isinstance(task, PruneTask)
        what = f"pruning {task.patches[0].patch_id}"
        if len(task.patches) > 1:
            what += f" and {len(task.patches) - 1} more"
        try:
            yield from self._make(task, inbox)
        except SourceFault as fault:
            yield TaskFailed(task.task_id, Failure(fault.kind, str(fault), self._log))
        except HubUnreachable as error:
            cause = f"{socket.gethostname()}: {error}"
            yield TaskFailed(task.task_id, Failure(FailureKind.DATA, cause, self._log))
        except ValueError as error:
            yield TaskFailed(task.task_id, Failure(FailureKind.BAD_INPUT, f"{what}: {error}", self._log))
        except StoreError as error:
            yield TaskFailed(task.task_id, Failure(FailureKind.STORE, f"{what}: {error}", self._log))
        except (OSError, MemoryError, RuntimeError) as error:
            cause = f"{what}: {type(error).__name__}: {error}"
            yield TaskFailed(task.task_id, Failure(FailureKind.PRUNE, cause, self._log))
        else:
            yield TaskEnded(task.task_id)

    def _make(self, task: PruneTask, inbox: Inbox) -> Iterator[Report]:
        """Prune what is not stored, and publish each patch when it is finished."""
        began = time.monotonic()
        owed = yield from self._not_stored(task, inbox)
        found = yield from self._with_their_data(task, owed)
        if not found:
            return
        base, owed = next(iter(found.values())).base, [one for one in owed if one.patch_id in found]
        # Not in the scratch folder, which is this sweep's: what a kill leaves here is cleared by any next pruning.
        with unfinished_folder(Path(tempfile.gettempdir()), f"prunesweep-{owed[0].patch_id}") as making:
            jobs = [PruneJob(found[one.patch_id].spec, making / one.patch_id, dict(one.payload)) for one in owed]
            with closing(prune_each(base, jobs, device=self._device)) as results:
                for job, result in results:
                    patch_id = job.destination.name
                    if isinstance(result, ValueError):
                        failure = Failure(FailureKind.BAD_INPUT, f"pruning {patch_id}: {result}", self._log)
                        yield PatchFailed(task.task_id, patch_id, failure)
                        continue
                    publish = partial(self._store.publish_patch, job.destination, patch_id)
                    yield from retry_while_unavailable(task.task_id, publish, inbox, self._store_seconds)
                    shutil.rmtree(job.destination)
                    now = time.monotonic()
                    yield PatchMade(task.task_id, patch_id, result.realised, now - began)
                    began = now
                    if inbox.closed:
                        return

    def _not_stored(self, task: PruneTask, inbox: Inbox) -> Generator[Report, None, list[PatchRequest]]:
        """Report the patches that are stored, by a worker that died before it could; returns the others."""
        stored = yield from retry_while_unavailable(task.task_id, self._store.patch_ids, inbox, self._store_seconds)
        cache = self._scratch / "stored" / self._name  # its own, apart from the patches in the making
        for request in task.patches:
            if request.patch_id in stored:
                manifest = read_manifest(self._store.fetch_patch(request.patch_id, cache))
                yield PatchMade(task.task_id, request.patch_id, manifest.realised, 0.0)
        return [request for request in task.patches if request.patch_id not in stored]

    def _with_their_data(
        self, task: PruneTask, owed: list[PatchRequest]
    ) -> Generator[Report, None, dict[str, Sources]]:
        """Report the patches whose calibration data or checkpoint this machine lacks; returns what it has, by patch id.

        Raises SourceFault for the model.
        """
        found = {}
        for request in map(self._with_stored_traces, owed):
            try:
                found[request.patch_id] = check_sources(task.model, request)
            except SourceFault as fault:
                if fault.kind is not FailureKind.DATA:
                    raise
                yield PatchFailed(task.task_id, request.patch_id, Failure(fault.kind, str(fault), self._log))
        return found

    def _with_stored_traces(self, request: PatchRequest) -> PatchRequest:
        """The request with the files of traces that the store keeps (`own-traces:NAME`). Raises StoreError."""
        spec = request.spec
        for field in DATA_FIELDS:
            calibration: CalibrationSpec | None = getattr(spec, field)
            if calibration is not None and calibration.data.startswith(STORED_TRACES):
                name = calibration.data.removeprefix(STORED_TRACES)
                file = self._store.fetch_traces(name, self._scratch / "traces" / self._name)
                located: dict[str, Any] = {field: replace(calibration, data=str(file))}
                spec = replace(spec, **located)
        return replace(request, spec=spec)

    def close(self) -> None:
        """There is nothing to release."""
