"""Make ordinary English text to calibrate on, and to measure perplexity on, where no hub can be reached.

    python -m examples.smollm2.make_text

writes ``text.jsonl`` and ``held-out.jsonl``: what the packages of this environment say of themselves (the description
in their metadata, a README as a rule), text of the web as C4's is. A third of them is held out. The packages are
pinned, so the files are the same on every machine; they are made, not committed, since their licenses differ.
"""

import hashlib
import json
from importlib.metadata import distributions
from pathlib import Path

HERE = Path(__file__).parent
SHORTEST = 500
"""Characters; a shorter description says little."""


def descriptions() -> dict[str, str]:
    """Package name -> its description."""
    found = {}
    for package in distributions():
        name = (package.metadata["Name"] or "").lower().replace("_", "-")
        body = package.metadata.get_payload()
        if name and name != "prunesweep" and isinstance(body, str) and len(body) >= SHORTEST:
            found[name] = body.strip()
    return dict(sorted(found.items()))


def main() -> None:
    rows: dict[str, list[str]] = {"text.jsonl": [], "held-out.jsonl": []}
    for name, text in descriptions().items():
        held_out = hashlib.sha256(name.encode()).digest()[0] % 3 == 0
        rows["held-out.jsonl" if held_out else "text.jsonl"].append(json.dumps({"package": name, "text": text}) + "\n")
    for file, lines in rows.items():
        (HERE / file).write_text("".join(lines), encoding="utf-8")
        print(f"{HERE / file}: {len(lines)} documents")


if __name__ == "__main__":
    main()
