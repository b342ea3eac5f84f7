"""Naive references, written from the papers' definitions: the whole model in memory, one window and one matrix at a
time, full sorts and explicit inverses in float64. Imports nothing of `pruning`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
Key = tuple[int, str]


def whole_model(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def linear(model, key: Key):
    return model.model.layers[key[0]].get_submodule(key[1])


def keys(model) -> list[Key]:
    return [(layer, name) for layer in range(len(model.model.layers)) for name in LINEARS]


def weight(model, key: Key) -> np.ndarray:
    return linear(model, key).weight.detach().double().numpy().copy()


def inputs_of_layer(model, layer: int, windows: np.ndarray) -> dict[str, np.ndarray]:
    """Every token's input of every linear of one layer, from whole forwards, [all tokens, d_in] float64."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in LINEARS}
    handles = []
    for name in LINEARS:

        def hook(_module, entered, _left, name=name):
            seen[name].append(entered[0][0].detach().double().numpy())

        handles.append(linear(model, (layer, name)).register_forward_hook(hook))
    with torch.no_grad():
        for window in windows:
            model(torch.from_numpy(window)[None])
    for handle in handles:
        handle.remove()
    return {name: np.concatenate(rows) for name, rows in seen.items()}


def sequential(
    model,
    windows: np.ndarray,
    decide: Callable[[Key, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    *,
    pruned: bool,
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """Masks (True = dropped) and new weights, layer by layer; with `pruned` each layer sees the pruned ones
    before it.
    """
    dropped, updated = {}, {}
    for layer in range(len(model.model.layers)):
        inputs = inputs_of_layer(model, layer, windows)
        for name in LINEARS:
            key = (layer, name)
            dropped[key], updated[key] = decide(key, weight(model, key), inputs[name])
        if pruned:
            for name in LINEARS:
                key = (layer, name)
                with torch.no_grad():
                    linear(model, key).weight.copy_(torch.from_numpy(np.where(dropped[key], 0, updated[key])))
    return dropped, updated


def wanda_score(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.abs(w) * np.sqrt((x**2).sum(axis=0))[None, :]


def ria_score(w: np.ndarray, x: np.ndarray, power: float = 0.5) -> np.ndarray:
    a = np.abs(w)
    return (a / a.sum(axis=0)[None, :] + a / a.sum(axis=1)[:, None]) * np.sqrt((x**2).sum(axis=0))[None, :] ** power


def rows_exact(score: np.ndarray, sparsity: float) -> np.ndarray:
    dropped = np.zeros(score.shape, dtype=bool)
    for row, values in enumerate(score):
        order = np.argsort(values, kind="stable")
        dropped[row, order[: int(score.shape[1] * sparsity)]] = True
    return dropped


def group_exact(scores: list[np.ndarray], count: int) -> list[np.ndarray]:
    flat = np.concatenate([score.ravel() for score in scores])
    dropped = np.zeros(flat.shape, dtype=bool)
    dropped[np.argsort(flat, kind="stable")[:count]] = True
    return split_like(dropped, scores)


def group_threshold(scores: list[np.ndarray], count: int) -> list[np.ndarray]:
    flat = np.concatenate([score.ravel() for score in scores])
    return split_like(flat <= np.sort(flat)[count], scores)


def split_like(flat: np.ndarray, scores: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([score.size for score in scores])[:-1]
    return [part.reshape(score.shape) for part, score in zip(np.split(flat, ends), scores, strict=True)]


def n_of_m(score: np.ndarray, n: int, m: int) -> np.ndarray:
    dropped = np.zeros(score.shape, dtype=bool)
    for row in range(score.shape[0]):
        for start in range(0, score.shape[1], m):
            order = np.argsort(score[row, start : start + m], kind="stable")
            dropped[row, start + order[:n]] = True
    return dropped


def sparsegpt(
    w: np.ndarray,
    x: np.ndarray,
    sparsity: float,
    *,
    block: int,
    pattern: tuple[int, int] | None = None,
    damp: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """Optimal brain surgeon column by column, inverting the remaining Hessian afresh for every column."""
    w = w.copy()
    hessian = x.T @ x
    dead = np.diag(hessian) == 0
    hessian[dead, dead] = 1
    w[:, dead] = 0
    hessian += damp * np.diag(hessian).mean() * np.eye(len(hessian))
    columns = w.shape[1]
    remaining = [np.linalg.inv(hessian[j:, j:])[0] for j in range(columns)]
    scale = np.array([row[0] for row in remaining])
    dropped = np.zeros(w.shape, dtype=bool)
    for j in range(columns):
        if pattern is None and j % block == 0:
            stop = min(j + block, columns)
            score = w[:, j:stop] ** 2 / scale[j:stop]
            dropped[:, j:stop] = score <= np.sort(score.ravel())[int(score.size * sparsity)]
        if pattern is not None and j % pattern[1] == 0:
            here = slice(j, j + pattern[1])
            dropped[:, here] = n_of_m(w[:, here] ** 2 / scale[here], *pattern)
        error = np.where(dropped[:, j], w[:, j], 0) / scale[j]
        w[:, j:] -= np.outer(error, remaining[j])
        w[dropped[:, j], j] = 0
    return dropped, w


def block_influence(model, windows: np.ndarray) -> list[float]:
    states = []
    with torch.no_grad():
        for window in windows:
            output = model(torch.from_numpy(window)[None], output_hidden_states=True)
            states.append([state[0].double() for state in output.hidden_states])
    layers = len(model.model.layers)
    cosine = torch.nn.functional.cosine_similarity
    return [1 - float(torch.cat([cosine(s[i], s[i + 1], dim=-1) for s in states]).mean()) for i in range(layers)]


def outlier_percentages(model, windows: np.ndarray, multiple: float) -> list[float]:
    shares = []
    for layer in range(len(model.model.layers)):
        inputs = inputs_of_layer(model, layer, windows)
        scores = [wanda_score(weight(model, (layer, name)), inputs[name]).ravel() for name in LINEARS]
        together = np.concatenate(scores)
        shares.append(100 * float((together > multiple * together.mean()).mean()))
    return shares


def gradients(model, window: np.ndarray) -> dict[Key, np.ndarray]:
    """Weight gradients of the window's mean next-token loss, by whole-model backward."""
    model.zero_grad()
    ids = torch.from_numpy(window)
    logits = model(ids[None]).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, ids[1:]).backward()
    return {key: linear(model, key).weight.grad.double().numpy().copy() for key in keys(model)}
