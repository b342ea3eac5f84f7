"""Makes patches: prunes the checkpoint, writes a patch folder, publishes it to the store."""

import os
import socket
import tempfile
import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import torch

from pruning.files import unfinished_folder
from pruning.model.hub import HubUnreachable
from pruning.patch.manifest import read_manifest
from pruning.prune import prune
from workers.failure import Failure, FailureKind
from workers.messages import PatchMade, PruneTask, Report, Task, TaskEnded, TaskFailed, WorkerInfo
from workers.sources import SourceFault, check_sources
from workers.store import StoreError, WorkerStore
from workers.store_retry import retry_while_unavailable
from workers.worker import Inbox


class PruneWorker:
    """One device that prunes, one patch at a time."""

    def __init__(self, name: str, store: WorkerStore, scratch: Path, log: str = "", store_seconds: float = 0.0) -> None:
        """`store_seconds`: how long an unavailable store is retried."""
        self._name, self._store, self._scratch, self._log = name, store, scratch, log
        self._store_seconds = store_seconds
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def facts(self) -> WorkerInfo:
        settings = {"device": self._device, "torch": torch.__version__}
        return WorkerInfo(self._name, socket.gethostname(), os.getpid(), self._log, settings)

    def run(self, task: Task, inbox: Inbox) -> Iterator[Report]:
        """Make one patch; a closed inbox does not interrupt it.

        Fails with "bad-input", which is final; with "source" or "data" if this machine lacks what the driver has read;
        or with "store" or "prune", which may succeed when tried again.
        """
        assert isinstance(task, PruneTask)
        began = time.monotonic()
        try:
            sparsity = yield from self._make(task, inbox)
        except SourceFault as fault:
            yield TaskFailed(task.task_id, Failure(fault.kind, str(fault), self._log))
        except HubUnreachable as error:
            cause = f"{socket.gethostname()}: {error}"
            yield TaskFailed(task.task_id, Failure(FailureKind.DATA, cause, self._log))
        except ValueError as error:
            yield TaskFailed(
                task.task_id, Failure(FailureKind.BAD_INPUT, f"pruning {task.patch_id}: {error}", self._log)
            )
        except StoreError as error:
            yield TaskFailed(task.task_id, Failure(FailureKind.STORE, f"pruning {task.patch_id}: {error}", self._log))
        except (OSError, MemoryError, RuntimeError) as error:
            cause = f"pruning {task.patch_id}: {type(error).__name__}: {error}"
            yield TaskFailed(task.task_id, Failure(FailureKind.PRUNE, cause, self._log))
        else:
            yield PatchMade(task.task_id, task.patch_id, sparsity, time.monotonic() - began)
            yield TaskEnded(task.task_id)

    def _make(self, task: PruneTask, inbox: Inbox) -> Generator[Report, None, float]:
        """Prune and publish, unless the patch is stored; returns its realised sparsity."""
        stored = yield from retry_while_unavailable(task.task_id, self._store.patch_ids, inbox, self._store_seconds)
        if task.patch_id in stored:  # by a worker that died before it could report it
            cache = self._scratch / "stored" / self._name  # its own, apart from the patches in the making
            return read_manifest(self._store.fetch_patch(task.patch_id, cache)).realised
        base = check_sources(task)
        # Not in the scratch folder, which is this sweep's: what a kill leaves here is cleared by any next pruning.
        with unfinished_folder(Path(tempfile.gettempdir()), f"prunesweep-{task.patch_id}") as making:
            folder = making / "patch"
            made = prune(base, task.spec, folder, payload=dict(task.payload), device=self._device)
            publish = partial(self._store.publish_patch, folder, task.patch_id)
            yield from retry_while_unavailable(task.task_id, publish, inbox, self._store_seconds)
        return made.realised

    def close(self) -> None:
        """There is nothing to release."""
