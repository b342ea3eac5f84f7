"""What extraction returns."""

from typing import NamedTuple

LONGEST_EXPRESSION = 2000
"""Characters. Longer answers are not compared: no gold comes near this length."""


class Found(NamedTuple):
    """An answer that a text gives, and the rule that found it."""

    expression: str
    rule: str
