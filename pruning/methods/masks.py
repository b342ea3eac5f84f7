"""Importance and comparison group -> keep mask. Pure; scores are non-negative float32, masks are bool, True = kept.

Selecting k of n needs an order statistic, not a sort. Rows go through a partial selection; larger groups go
through two histogram passes over the bits of their floats (radix selection), so a group need not fit in memory.
Ties are resolved as a stable ascending sort would: the entry that comes first in row-major order is dropped
first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from pruning.spec import n_of_m

Scores = Callable[[], Iterable[torch.Tensor]]
"""Yields the score tensors of a group in order, again on every call."""


@dataclass(frozen=True)
class Cutoff:
    """Drop everything below `value`, and the first `ties` of the entries that equal it."""

    value: float
    ties: int


def row_mask(score: torch.Tensor, sparsity: float, selection: str) -> torch.Tensor:
    """Keep mask of one matrix [d_out, d_in], each row ranked by itself (Wanda, arXiv 2306.11695, section 3).

    `exact` drops the int(d_in * sparsity) smallest of a row, `threshold` everything <= the value of that rank.
    """
    dropped = int(score.shape[1] * sparsity)
    if sparsity <= 0 or (selection == "exact" and dropped == 0):
        return torch.ones_like(score, dtype=torch.bool)
    if selection == "threshold":
        return score > _row_order_statistic(score, dropped)
    cut = _row_order_statistic(score, dropped - 1)
    keep = score > cut
    crowded = (keep.count_nonzero(dim=1) != score.shape[1] - dropped).nonzero().flatten()
    if crowded.numel():
        tight, ties = score[crowded] < cut[crowded], score[crowded] == cut[crowded]
        spare = dropped - tight.sum(dim=1, keepdim=True)
        keep[crowded] = ~(tight | (ties & (ties.cumsum(dim=1) <= spare)))
    return keep


def pattern_mask(score: torch.Tensor, pattern: str) -> torch.Tensor:
    """Keep mask that drops the N smallest of every M consecutive inputs of a row, the earlier of equals first.

    Raises ValueError if M does not divide d_in.
    """
    n, m = n_of_m(pattern)
    rows, columns = score.shape
    if columns % m:
        raise ValueError(f"pattern {pattern} needs a multiple of {m} inputs, not {columns}; use another pattern.")
    members = score.reshape(-1, m).T.contiguous()
    earlier = torch.zeros_like(members, dtype=torch.uint8)  # of its group, how many fall before it
    for later in range(1, m):
        for first in range(later):
            smaller = members[later] < members[first]
            earlier[first] += smaller
            earlier[later] += ~smaller
    return (earlier >= n).T.reshape(rows, columns)


def cutoff(scores: Scores, dropped: int, selection: str) -> Cutoff:
    """Where to cut a group: 'exact' drops `dropped` entries, 'threshold' everything <= the value of that rank."""
    if dropped == 0 and selection == "exact":
        return Cutoff(0.0, 0)
    if selection == "threshold":
        value, _ = _order_statistic(scores, dropped)
        return Cutoff(value, sum(int((score == value).sum()) for score in scores()))
    value, below = _order_statistic(scores, dropped - 1)
    return Cutoff(value, dropped - below)


def cut(scores: Iterable[torch.Tensor], where: Cutoff) -> Iterator[torch.Tensor]:
    """Keep masks of the group's tensors, in order. The ties to drop are used up in that order, across tensors."""
    left = where.ties
    for score in scores:
        keep = score > where.value
        ties = score == where.value
        count = int(ties.sum())
        if count > left:
            ties &= (ties.flatten().cumsum(0) > left).reshape(ties.shape)
            keep |= ties
        left = max(0, left - count)
        yield keep


def _row_order_statistic(score: torch.Tensor, rank: int) -> torch.Tensor:
    """The entry of 0-based `rank` of each row, [rows, 1]."""
    if score.device.type == "cpu":  # numpy's vectorised partition is several times torch.kthvalue there
        part = np.partition(score.numpy(), rank, axis=1)[:, rank : rank + 1]
        return torch.from_numpy(np.ascontiguousarray(part))
    return score.kthvalue(rank + 1, dim=1, keepdim=True).values


def _order_statistic(scores: Scores, rank: int) -> tuple[float, int]:
    """The entry of 0-based `rank` over all scores, and how many are smaller.

    Non-negative floats sort like their bit patterns: find its upper 16 bits first, then the lower 16.
    """
    prefix, below = _bucket((_bits(score) >> 16 for score in scores()), rank, 1 << 15)
    suffixes = (bits[(bits >> 16) == prefix] & 0xFFFF for bits in map(_bits, scores()))
    suffix, below_there = _bucket(suffixes, rank - below, 1 << 16)
    value = np.array((prefix << 16) | suffix, dtype=np.int32).view(np.float32)
    return float(value), below + below_there


def _bucket(keys: Iterable[torch.Tensor], rank: int, size: int) -> tuple[int, int]:
    """The key of 0-based `rank` among integers in [0, size), and how many keys are smaller."""
    counts = torch.zeros(size, dtype=torch.int64)
    for key in keys:
        counts += torch.bincount(key.flatten(), minlength=size).cpu()
    running = counts.cumsum(0)
    found = int(torch.searchsorted(running, rank, right=True))
    return found, int(running[found - 1]) if found else 0


def _bits(score: torch.Tensor) -> torch.Tensor:
    return score.contiguous().view(torch.int32)
