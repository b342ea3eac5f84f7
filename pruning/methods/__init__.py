"""The pruning methods. To add one, see docs/extending.md: a file beside this one, and a line in the table below."""

from __future__ import annotations

from typing import Final

from pruning.methods import checkpoint, dense, magnitude, ria, shortgpt, sparsegpt, wanda
from pruning.methods.method import Method
from pruning.plugins import Table

METHODS: Final = Table(
    "method",
    "prunesweep.methods",
    Method,
    {
        row.name: row
        for row in (
            dense.METHOD,
            magnitude.METHOD,
            wanda.METHOD,
            ria.METHOD,
            sparsegpt.METHOD,
            shortgpt.METHOD,
            checkpoint.METHOD,
        )
    },
)
"""Name -> method, in the order in which messages list them; those of installed packages last."""
