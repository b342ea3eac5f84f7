"""How a fault in a grid is told: the place, the rule and the remedy, with the nearest name that would be right."""

import difflib


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str:
    """`; did you mean 'x'?`, or a full stop where nothing is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else "."


class GridError(Exception):
    """A grid that cannot be run as written. The message names the place, the rule and the remedy."""
