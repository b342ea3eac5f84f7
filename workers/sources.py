"""Finds on this machine what the driver has named and read on its own: checkpoints, and calibration data.

A model that is a folder is sent as its path. A hub model is sent as `org/name@commit`, and each machine resolves it in
its own Hugging Face cache, or fetches it there: the cache's own locks let one worker download each file, and the others
wait. Whatever is found must have the content that the driver has planned with, or its machine is of no use.
"""

import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pruning.model.checkpoint import Checkpoint
from pruning.model.hub import unreachable
from pruning.resolve import packages
from pruning.spec import DATA_FIELDS, CalibrationSpec, PruneSpec
from workers.failure import FailureKind
from workers.messages import PatchRequest

NEEDED_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
"""The files of a hub model that are read; many repositories hold the weights in other formats, too."""
DATA_SUFFIXES = (".jsonl", ".npy", ".parquet", ".txt")
AS_TEXT = b"paragraphs of plain text\n"
"""Put before a text file's content: the same bytes as rows of another format are other documents."""


class SourceFault(Exception):
    """This machine lacks what the driver could read, or has another by that name. The message names the machine."""

    def __init__(self, what: str, kind: FailureKind = FailureKind.SOURCE) -> None:
        super().__init__(f"{socket.gethostname()}: {what}")
        self.kind = kind


def find_base(model: str, digest: str) -> Path:
    """The folder of a base checkpoint on this machine; a hub model is downloaded unless it is cached.

    `digest`: `Checkpoint.digest` of the driver's; empty to take what is there. Raises SourceFault.
    """
    return _find(model, digest, _open_whole, FailureKind.SOURCE)


def find_checkpoint(path: str, digest: str) -> Path:
    """`find_base` for a checkpoint that is to become a patch. It needs no tokenizer, and is lacking to that alone."""
    return _find(path, digest, Checkpoint.open, FailureKind.DATA)


def _find(model: str, digest: str, read: Callable[[Path], Checkpoint], fault: FailureKind) -> Path:
    try:
        folder = Path(model) if Path(model).is_absolute() or Path(model).is_dir() else _snapshot(model, read)
        found = read(folder).digest() if digest else digest
    except (ValueError, OSError) as error:
        raise SourceFault(str(error), fault) from None
    if found != digest:
        raise SourceFault(
            f"{folder} has other weights than the driver's {model} (digest {found[:12]}, not "
            f"{digest[:12]}); give every machine the same files",
            fault,
        )
    return folder


@dataclass(frozen=True)
class Sources:
    """Where this machine has what a patch is made from."""

    base: Path
    spec: PruneSpec
    """The patch's, with its checkpoint's folder here."""


def check_sources(model: str, request: PatchRequest) -> Sources:
    """What a patch is to be made from, once the models and the calibration data are known to be the driver's.

    Raises SourceFault.
    """
    folder = find_base(model, request.payload.get("base", ""))
    tokenizer = request.payload.get("tokenizer")
    if tokenizer is not None and Checkpoint.open(folder).tokenizer_digest() != tokenizer:
        raise SourceFault(f"{folder} has another tokenizer than the driver's; give every machine the same files")
    _check_packages(request)
    for field in DATA_FIELDS:
        calibration: CalibrationSpec | None = getattr(request.spec, field)
        expected = (request.payload.get("spec", {}).get(field) or {}).get("data")
        if calibration is not None and expected:
            _check_data(calibration, expected)
    if request.spec.path is None:
        return Sources(folder, request.spec)
    checkpoint = find_checkpoint(request.spec.path, request.payload.get("spec", {}).get("path", ""))
    return Sources(folder, replace(request.spec, path=str(checkpoint)))


def _open_whole(folder: Path) -> Checkpoint:
    base = Checkpoint.open(folder)
    base.tokenizer_digest()  # raises ValueError if there is no tokenizer: an engine needs one
    return base


def _check_packages(request: PatchRequest) -> None:
    """Raises SourceFault unless the packages of method and allocator are installed here, in the driver's versions."""
    here = packages(request.spec)
    for axis, package in request.payload.get("packages", {}).items():
        if here.get(axis) != package:
            name = getattr(request.spec, axis)
            has = f"has {here[axis]}" if axis in here else "has no package with it"
            what = (
                f"{axis} {name!r} is of {package} at the driver, and this machine {has}; install the driver's on each"
            )
            raise SourceFault(what, FailureKind.DATA)


def _check_data(calibration: CalibrationSpec, expected: str) -> None:
    try:
        if data_digest(calibration) == expected:
            return
        what = f"calibration file {calibration.data} is not the driver's; give every machine the same file"
    except (ValueError, OSError) as error:
        what = str(error)
    raise SourceFault(what, FailureKind.DATA)


def cached_snapshot(repository: str, revision: str | None) -> Path:
    """The folder of a hub model in the local Hugging Face cache. Raises ValueError if it is not there in full."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=NEEDED_FILES)
        )
    except (LocalEntryNotFoundError, FileNotFoundError) as error:
        raise ValueError(f"{repository} is not in the local Hugging Face cache, or not in full") from error


def _snapshot(model: str, read: Callable[[Path], Checkpoint]) -> Path:
    """The folder of `org/name@commit`, downloaded if need be. Raises ValueError that says what to do."""
    repository, _, commit = model.partition("@")
    try:
        folder = cached_snapshot(repository, commit)
        read(folder)
        return folder
    except ValueError as error:  # not there, or a download that was broken off
        missing = error
    why = unreachable()
    if not why:
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(repository, revision=commit, allow_patterns=NEEDED_FILES))
        except Exception as error:  # whatever the hub's client raises: no access, no room, a broken connection
            why = f"it cannot be fetched: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    raise ValueError(
        f"model {model}: {missing}, and {why}; fetch it there with `hf download {repository} --revision {commit}`, set "
        "HF_HOME to a cache that every machine shares, or give a folder that every machine sees"
    ) from None


def data_digest(calibration: CalibrationSpec) -> str:
    """What represents calibration data in a patch's id: the sha256 of a file's content, with how it is read if that is
    not told by the content, or the id of a hub data set.

    Raises ValueError for a file that does not exist.
    """
    file = Path(calibration.data)
    if file.is_file():
        return hashlib.sha256((AS_TEXT if file.suffix == ".txt" else b"") + file.read_bytes()).hexdigest()
    if file.suffix in DATA_SUFFIXES:
        raise ValueError(
            f"calibration file {calibration.data}: no such file; give a file that exists, 'c4' or a hub id"
        )
    return calibration.data
