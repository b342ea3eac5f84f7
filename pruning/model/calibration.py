"""Documents -> token windows, int64 [samples, tokens].

`document` draws as the wanda repository does (lib/data.py): pick a document with Python's seeded generator,
reject it unless it is longer than a window, take a random window of it. `packed` shuffles the documents, joins
them with the end-of-text token and cuts consecutive windows, as short documents and reasoning traces need. The
windows of a `tokens.npy` are used as they are.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pruning.model.checkpoint import Checkpoint
from pruning.model.hub import HubUnreachable, cached_only, unreachable
from pruning.spec import CalibrationSpec

_C4: Final = ("allenai/c4", {"data_files": {"train": "en/c4-train.00000-of-01024.json.gz"}}, "train")
_HUB: Final = {"c4": _C4, "pg19": ("emozilla/pg19", {}, "validation")}
"""Name -> hub repository, options and default split: C4's first shard (wanda, OWL), PG19's validation books
(ShortGPT).
"""


@dataclass(frozen=True)
class Documents:
    """A sequence of documents, tokenised one at a time on demand."""

    rows: Sequence[Any]
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.rows)

    def tokens(self, index: int) -> list[int]:
        """Token ids of one row: its `token_ids`, its `messages` through the chat template, or its `text`."""
        row = self.rows[index]
        if "token_ids" in row:
            return list(row["token_ids"])
        if "messages" in row:
            encoded = self.tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)
            return list(encoded["input_ids"])
        if "text" in row:
            return list(self.tokenizer(row["text"])["input_ids"])
        raise ValueError(f"row {index} has neither 'text', 'messages' nor 'token_ids', only {', '.join(sorted(row))}.")


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer. Raises ValueError if the folder has none."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file() and not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder}: no tokenizer; copy tokenizer.json and tokenizer_config.json beside config.json.")
    return AutoTokenizer.from_pretrained(folder)


def load_windows(spec: CalibrationSpec, checkpoint: Checkpoint) -> np.ndarray:
    """The token windows that `spec` names, int64 [samples, tokens].

    Raises ValueError for a missing or malformed source, for token ids outside the vocabulary, for windows
    longer than the model's context and for too few tokens, naming the source and the numbers.
    """
    if spec.data.endswith(".npy"):
        windows = _exact_windows(Path(spec.data))
        _check_context(spec.data, windows.shape[1], checkpoint)
    else:
        documents = _documents(spec.data, checkpoint)
        _check_context(spec.data, spec.tokens, checkpoint)
        draw = _document_windows if (spec.windows or "packed") == "document" else _packed_windows
        try:
            windows = draw(documents, spec)
        except ValueError as error:
            raise ValueError(f"{spec.data}: {error}") from None
    vocabulary = int(checkpoint.config["vocab_size"])
    if windows.min() < 0 or windows.max() >= vocabulary:
        raise ValueError(
            f"{spec.data}: token ids run from {windows.min()} to {windows.max()}, the model knows "
            f"0..{vocabulary - 1}; tokenise with this model's tokenizer."
        )
    return windows


def _check_context(data: str, tokens: int, checkpoint: Checkpoint) -> None:
    if tokens > checkpoint.context_length:
        raise ValueError(
            f"{data}: windows of {tokens} tokens exceed the model's context of {checkpoint.context_length}; "
            "use shorter windows (calibration.tokens)."
        )


def windows_digest(windows: np.ndarray) -> str:
    """sha256 hex of shape and token ids, whichever file they came from; identities contain it."""
    content = np.ascontiguousarray(windows, dtype="<i8")
    return hashlib.sha256(f"{content.shape[0]}x{content.shape[1]}|".encode() + content.tobytes()).hexdigest()


def _exact_windows(file: Path) -> np.ndarray:
    if not file.is_file():
        raise ValueError(f"{file}: no such file.")
    try:
        windows = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{file}: not a plain .npy array ({error}).") from None
    if windows.ndim != 2 or windows.dtype != np.int64 or windows.shape[0] < 1 or windows.shape[1] < 2:
        raise ValueError(
            f"{file}: expected int64 [samples >= 1, tokens >= 2], found {windows.dtype} {list(windows.shape)}."
        )
    return windows


def _documents(data: str, checkpoint: Checkpoint) -> Documents:
    file = Path(data)
    if data.endswith((".jsonl", ".parquet")):
        if not file.is_file():
            raise ValueError(f"{file}: no such file.")
        rows: Sequence[Any] = list(_jsonl(file)) if data.endswith(".jsonl") else _parquet(file)
        if not rows:
            raise ValueError(f"{file}: has no rows.")
        ready = all("token_ids" in row for row in rows)
        return Documents(rows, None if ready else load_tokenizer(checkpoint.path))
    if file.suffix or file.exists():
        raise ValueError(f"{data}: unknown kind of calibration file; give .jsonl, .parquet, .npy or a hub dataset id.")
    return Documents(_hub(data), load_tokenizer(checkpoint.path))


def _jsonl(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: not JSON ({error}).") from None
            if not isinstance(row, dict) or not row.keys() & {"text", "messages", "token_ids"}:
                raise ValueError(f"{file}, line {number}: needs an object with 'text', 'messages' or 'token_ids'.")
            yield row


def _parquet(file: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    names = pyarrow.parquet.read_schema(file).names
    column = next((name for name in ("token_ids", "messages", "text") if name in names), None)
    if column is None:
        raise ValueError(f"{file}: needs a column 'token_ids', 'messages' or 'text', has {', '.join(names)}.")
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file, columns=[column]).to_pylist()
    return rows


def _hub(data: str) -> Sequence[Any]:
    import datasets

    name, _, split = data.partition(":")
    repository, options, default = _HUB.get(name, (name, {}, "train"))
    offline = unreachable()
    try:
        with cached_only() if offline else nullcontext():
            found: Sequence[Any] = datasets.load_dataset(repository, split=split or default, **options)
    except (OSError, ValueError, RuntimeError) as error:
        if offline:
            raise HubUnreachable(
                f"{data}: hub dataset {repository!r} is not in the local Hugging Face cache, and {offline}; load it "
                "where there is a network, share HF_HOME, or give calibration.data as a file"
            ) from None
        raise ValueError(f"{data}: cannot load hub dataset {repository!r} ({error}).") from None
    return found


def _document_windows(documents: Documents, spec: CalibrationSpec) -> np.ndarray:
    drawn = random.Random(spec.seed)
    short: set[int] = set()
    windows: list[list[int]] = []
    while len(windows) < spec.samples:
        index = drawn.randint(0, len(documents) - 1)
        tokens = [] if index in short else documents.tokens(index)
        if len(tokens) <= spec.tokens:
            short.add(index)
            if len(short) == len(documents):
                raise ValueError(
                    f"no document is longer than {spec.tokens} tokens; "
                    "lower calibration.tokens or use windows='packed'."
                )
            continue
        start = drawn.randint(0, len(tokens) - spec.tokens - 1)
        windows.append(tokens[start : start + spec.tokens])
    return np.array(windows, dtype=np.int64)


def _packed_windows(documents: Documents, spec: CalibrationSpec) -> np.ndarray:
    order = list(range(len(documents)))
    random.Random(spec.seed).shuffle(order)
    end = None if documents.tokenizer is None else documents.tokenizer.eos_token_id
    needed = spec.samples * spec.tokens
    stream: list[int] = []
    for index in order:
        stream += documents.tokens(index)
        if end is not None and stream and stream[-1] != end:
            stream.append(end)
        if len(stream) >= needed:
            return np.array(stream[:needed], dtype=np.int64).reshape(spec.samples, spec.tokens)
    raise ValueError(
        f"too few calibration tokens: {len(stream)} of {spec.samples} x {spec.tokens} = {needed}; "
        "add documents or lower calibration.samples or calibration.tokens."
    )
