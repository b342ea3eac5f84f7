"""Finds the models and calibration data that a grid names on this machine. Downloads nothing."""

import hashlib
from pathlib import Path

from pruning.spec import CalibrationSpec


def local_folder(model: str) -> Path:
    """The folder of a model: the path itself, or the cached snapshot of a hub id (`org/name@revision`).

    Raises ValueError, naming the command that fetches it, when there is neither.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    repository, _, revision = model.partition("@")
    if repository.count("/") == 1 and not repository.startswith((".", "/")):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
        except (LocalEntryNotFoundError, FileNotFoundError, ValueError):
            fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
            raise ValueError(
                f"model {model!r} is neither a local folder nor in the local Hugging Face cache; fetch it with "
                f"`{fetch}`, or give a folder"
            ) from None
    raise ValueError(
        f"model {model!r}: no such folder; give a local checkpoint folder or a hub id such as Qwen/Qwen3-8B"
    )


def data_digest(calibration: CalibrationSpec) -> str:
    """What represents calibration data in a patch's id: the sha256 of a file's content, or the id of a hub data set.

    Raises ValueError for a file that does not exist.
    """
    file = Path(calibration.data)
    if file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    if file.suffix in (".jsonl", ".npy", ".parquet"):
        raise ValueError(
            f"calibration file {calibration.data}: no such file; give a file that exists, 'c4' or a hub id"
        )
    return calibration.data
