"""Finds the models that a grid names on this machine. Downloads nothing."""

from pathlib import Path

from workers.sources import cached_snapshot


def local_folder(model: str) -> Path:
    """The folder of a model: the path itself, or the cached snapshot of a hub id (`org/name@revision`).

    Raises ValueError, naming the command that fetches it, when there is neither.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    repository, _, revision = model.partition("@")
    if repository.count("/") == 1 and not repository.startswith((".", "/")):
        try:
            return cached_snapshot(repository, revision or None)
        except ValueError:
            fetch = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
            raise ValueError(
                f"model {model!r} is neither a local folder nor in the local Hugging Face cache; fetch it with "
                f"`{fetch}`, or give a folder"
            ) from None
    raise ValueError(
        f"model {model!r}: no such folder; give a local checkpoint folder or a hub id such as Qwen/Qwen3-8B"
    )


def for_workers(model: str, folder: Path) -> str:
    """What workers are told of a model that `local_folder` has found: its absolute path, or the hub id with the commit
    that was found, which each machine resolves by itself: its cache may be elsewhere."""
    if Path(model).is_dir():
        return str(folder.absolute())
    return f"{model.partition('@')[0]}@{folder.name}"
