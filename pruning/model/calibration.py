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
from typing import Final

import numpy as np

from pruning.model.checkpoint import Checkpoint
from pruning.model.documents import Documents, open_documents
from pruning.model.documents import load_tokenizer as load_tokenizer
from pruning.spec import CalibrationSpec

_NONE_LEFT: Final = (
    "the training windows leave no other documents for a validation window of {} tokens; "
    "give influence_validation, add documents, or lower the samples of the training data."
)


def load_windows(spec: CalibrationSpec, checkpoint: Checkpoint) -> np.ndarray:
    """The token windows that `spec` names, int64 [samples, tokens].

    Raises ValueError for a missing or malformed source, for token ids outside the vocabulary, for windows
    longer than the model's context and for too few tokens, naming the source and the numbers.
    """
    if spec.data.endswith(".npy"):
        windows = _exact_windows(Path(spec.data))
        _check_context(spec.data, windows.shape[1], checkpoint)
        return _known(spec.data, windows, checkpoint)
    return _drawn(spec, open_documents(spec.data, checkpoint), checkpoint, frozenset())[0]


def load_windows_apart(spec: CalibrationSpec, train: CalibrationSpec, checkpoint: Checkpoint) -> np.ndarray:
    """The windows of `spec` from documents that the windows of `train`, of the same data, do not touch, nor a copy.

    `packed` gives as many windows as the other documents fill, at most `spec.samples`. Raises ValueError as
    `load_windows` does, and if not one window is left.
    """
    documents = open_documents(spec.data, checkpoint)
    _, touched = _drawn(train, documents, checkpoint, frozenset())
    return _drawn(spec, documents, checkpoint, frozenset(touched))[0]


Content = tuple[int, ...]
"""The token ids of a document."""


def _drawn(
    spec: CalibrationSpec, documents: Documents, checkpoint: Checkpoint, barred: frozenset[Content]
) -> tuple[np.ndarray, set[Content]]:
    """The windows of `spec` from documents that are not `barred`, and the documents that they touch."""
    _check_context(spec.data, spec.tokens, checkpoint)
    draw = _document_windows if (spec.windows or "packed") == "document" else _packed_windows
    try:
        windows, touched = draw(documents, spec, barred)
    except ValueError as error:
        raise ValueError(f"{spec.data}: {error}") from None
    return _known(spec.data, windows, checkpoint), touched


def _known(data: str, windows: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """`windows`, unless the model does not know one of their tokens."""
    vocabulary = int(checkpoint.config["vocab_size"])
    if windows.min() < 0 or windows.max() >= vocabulary:
        raise ValueError(
            f"{data}: token ids run from {windows.min()} to {windows.max()}, the model knows "
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


def _document_windows(
    documents: Documents, spec: CalibrationSpec, barred: frozenset[Content]
) -> tuple[np.ndarray, set[Content]]:
    drawn = random.Random(spec.seed)
    useless: set[int] = set()
    windows: list[list[int]] = []
    touched: set[Content] = set()
    while len(windows) < spec.samples:
        index = drawn.randint(0, len(documents) - 1)
        tokens = [] if index in useless else documents.tokens(index)
        if len(tokens) <= spec.tokens or tuple(tokens) in barred:
            useless.add(index)
            if len(useless) == len(documents):
                raise ValueError(
                    _NONE_LEFT.format(spec.tokens)
                    if barred
                    else f"no document is longer than {spec.tokens} tokens; "
                    "lower calibration.tokens or use windows='packed'."
                )
            continue
        start = drawn.randint(0, len(tokens) - spec.tokens - 1)
        windows.append(tokens[start : start + spec.tokens])
        touched.add(tuple(tokens))
    return np.array(windows, dtype=np.int64), touched


def _packed_windows(
    documents: Documents, spec: CalibrationSpec, barred: frozenset[Content]
) -> tuple[np.ndarray, set[Content]]:
    order = list(range(len(documents)))
    random.Random(spec.seed).shuffle(order)
    end = None if documents.tokenizer is None else documents.tokenizer.eos_token_id
    samples, needed = spec.samples, spec.samples * spec.tokens
    stream: list[int] = []
    touched: set[Content] = set()
    for index in order:
        tokens = documents.tokens(index)
        if tuple(tokens) in barred:
            continue
        touched.add(tuple(tokens))
        stream += tokens
        if end is not None and stream and stream[-1] != end:
            stream.append(end)
        if len(stream) >= needed:
            break
    if barred:
        samples = min(samples, len(stream) // spec.tokens)
        if samples == 0:
            raise ValueError(_NONE_LEFT.format(spec.tokens))
    elif len(stream) < needed:
        raise ValueError(
            f"too few calibration tokens: {len(stream)} of {spec.samples} x {spec.tokens} = {needed}; "
            "add documents or lower calibration.samples or calibration.tokens."
        )
    return np.array(stream[: samples * spec.tokens], dtype=np.int64).reshape(samples, spec.tokens), touched
