"""The unpruned checkpoint as a variant: its patch holds digests and a canary only."""

from __future__ import annotations

from typing import Final

from pruning.methods.method import Method
from pruning.spec import DENSE

METHOD: Final = Method(DENSE)
