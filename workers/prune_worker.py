"""Makes patches: walks the checkpoint, writes a patch folder, publishes it to the store."""

import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import torch

from pruning.manifest import read_manifest
from pruning.walk import prune
from workers.messages import Facts, Failure, PatchMade, PruneTask, Report, Task
from workers.store_errors import StoreError
from workers.worker import Sink, TaskFault


class PruneWorker:
    """One device that prunes, one patch at a time."""

    def __init__(self, name: str, store: Sink, scratch: Path, log: str = "") -> None:
        self._name, self._store, self._scratch, self._log = name, store, scratch, log
        self._device = "cuda" if torch.cuda.is_available() else "cpu"

    def facts(self) -> Facts:
        settings = {"device": self._device, "torch": torch.__version__}
        return Facts(self._name, socket.gethostname(), os.getpid(), self._log, settings)

    def run(self, task: Task) -> Iterator[Report]:
        """Make one patch. Raises `TaskFault`: bad input is final, a store or memory fault may deserve another try."""
        assert isinstance(task, PruneTask)
        began = time.monotonic()
        folder = self._scratch / f"{task.patch_id}-{uuid.uuid4().hex[:8]}"
        try:
            if task.patch_id in self._store.patch_ids():  # published by a worker that died before it could say so
                made = read_manifest(self._store.fetch_patch(task.patch_id, self._scratch))
            else:
                self._scratch.mkdir(parents=True, exist_ok=True)
                made = prune(Path(task.model), task.spec, folder, payload=dict(task.payload), device=self._device)
                self._store.publish_patch(folder, task.patch_id)
        except ValueError as error:
            raise TaskFault(Failure("bad-input", f"pruning {task.patch_id}: {error}", self._log)) from error
        except StoreError as error:
            raise TaskFault(Failure("store", f"pruning {task.patch_id}: {error}", self._log)) from error
        except (OSError, MemoryError, RuntimeError) as error:
            cause = f"pruning {task.patch_id}: {type(error).__name__}: {error}"
            raise TaskFault(Failure("prune", cause, self._log)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        yield PatchMade(task.task_id, task.patch_id, made.realised, time.monotonic() - began)

    def ask_to_stop(self) -> None:
        """A patch is made or not made; there is nothing to hand in half-way."""

    def close(self) -> None:
        """Nothing is held."""
