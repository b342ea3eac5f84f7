"""The model folder that an engine starts from: a configuration beside the base's tokenizer, without weights.

vLLM keeps what it compiles for a GPU, 30 to 60 s of every start, under a key that contains the path of the model's
folder. So the folder is named by the digest of what is in it, and stays: every engine of the same shape, in this sweep
or a later one, finds what the first compiled. An engine reads the folder only while it starts, so it can be deleted
whenever none does; the next one makes it again.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.files import folder_in_one_piece

TOKENIZER_FILES = (
    "tokenizer",
    "special_tokens",
    "vocab",
    "merges",
    "added_tokens",
    "chat_template",
    "generation_config",
)
"""How the names of the base's files begin that are copied."""


def model_folder(cache: Path, base: Path, config: Mapping[str, Any]) -> Path:
    """The folder in `cache` that has `config` and the tokenizer of `base`; made if it is not there.

    Any number of engines may ask at once: whoever is first makes it, in one piece. A folder that no longer holds what
    its name says is replaced. Only the user can read it.
    """
    files = {file.name: file.read_bytes() for file in base.iterdir() if file.name.startswith(TOKENIZER_FILES)}
    files["config.json"] = json.dumps(config, sort_keys=True).encode()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    folder = cache / hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:32]
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _holds(folder, files):
        return folder
    if folder.exists():
        _remove(folder)
    try:
        with folder_in_one_piece(folder) as working:
            for name, content in files.items():
                (working / name).write_bytes(content)
    except ValueError:  # it is there: another engine was first
        if not _holds(folder, files):
            raise
    return folder


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Whether `folder` has these files and no others."""
    try:
        return {file.name: file.read_bytes() for file in folder.iterdir()} == files
    except OSError:
        return False


def _remove(folder: Path) -> None:
    """Rename a folder away and delete it: nobody sees it lose one file after the other, and one remover wins."""
    away = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        folder.rename(away / "damaged")
    except FileNotFoundError:
        pass  # another engine was faster
    finally:
        shutil.rmtree(away)
