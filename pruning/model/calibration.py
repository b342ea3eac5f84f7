"""Documents -> token windows, int64 [samples, tokens].

`document` draws as the wanda repository does (lib/data.py): pick a document with Python's seeded generator,
reject it unless it is longer than a window, take a random window of it. `packed` shuffles the documents, joins
them with the end-of-text token and cuts consecutive windows, as short documents and reasoning traces need. The
windows of a `tokens.npy` are used as they are.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np

from pruning.model.checkpoint import Checkpoint
from pruning.model.documents import Documents, open_documents
from pruning.model.documents import load_tokenizer as load_tokenizer
from pruning.spec import CalibrationSpec


def load_windows(spec: CalibrationSpec, checkpoint: Checkpoint) -> np.ndarray:
    """The token windows that `spec` names, int64 [samples, tokens].

    Raises ValueError for a missing or malformed source, for token ids outside the vocabulary, for windows
    longer than the model's context and for too few tokens, naming the source and the numbers.
    """
    if spec.data.endswith(".npy"):
        windows = _exact_windows(Path(spec.data))
        _check_context(spec.data, windows.shape[1], checkpoint)
    else:
        documents = open_documents(spec.data, checkpoint)
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
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: not a plain .npy array ({error}); save one with numpy.save.") from None
    if not isinstance(windows, np.ndarray):
        raise ValueError(f"{file}: an .npz archive, not a plain .npy array; save one with numpy.save.")
    if windows.ndim != 2 or windows.dtype != np.int64 or windows.shape[0] < 1 or windows.shape[1] < 2:
        raise ValueError(
            f"{file}: expected int64 [samples >= 1, tokens >= 2], found {windows.dtype} {list(windows.shape)}."
        )
    return windows


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
