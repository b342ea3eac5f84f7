"""The example grid as text, to be edited as a user would."""

from tests.support import ROOT

TINY = (ROOT / "examples/tiny/grid.yaml").read_text(encoding="utf-8")


def edited(*changes: tuple[str, str]) -> str:
    """The example grid with each (old, new) replaced once."""
    text = TINY
    for old, new in changes:
        assert old in text, f"the example grid no longer contains {old!r}"
        text = text.replace(old, new, 1)
    return text
