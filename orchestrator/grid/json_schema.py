"""`python -m orchestrator.grid.json_schema [--check]`: the JSON Schema of grid.yaml, for editors."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestrator.grid.format import GridFile
from pruning.allocators import ALLOCATORS
from pruning.knobs import KNOBS
from pruning.methods import METHODS
from pruning.spec import PATTERNS, PRESETS

_ABOUT = {
    "path": "the checkpoint of method checkpoint: a folder, or a hub id that is in the local cache",
    "label": "what tables call that checkpoint; the folder's name if left out",
}
FILE = Path(__file__).with_name("grid.schema.json")


def grid_schema() -> dict[str, Any]:
    """The schema of `GridFile`, with the methods, allocators, patterns and presets as enumerations."""
    schema = GridFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "prunesweep grid"
    axes = schema["$defs"]["VariantEntry"]["properties"]
    names: dict[str, Iterable[str]] = {
        "method": METHODS.built_in,
        "allocator": ALLOCATORS.built_in,
        "pattern": PATTERNS,
        "preset": PRESETS,
    }
    for axis, property_ in axes.items():
        if axis in ("calibration", "influence_train", "influence_validation"):
            continue
        one: dict[str, Any] = {"enum": list(names[axis])} if axis in names else {}
        property_.clear()
        property_ |= {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
        if axis in KNOBS or axis in _ABOUT:
            property_["description"] = KNOBS[axis].about if axis in KNOBS else _ABOUT[axis]
    return schema


def main(arguments: list[str]) -> int:
    """Write the schema, or with --check only compare the committed one with it. Returns the exit status."""
    text = json.dumps(grid_schema(), indent=2) + "\n"
    if arguments == ["--check"]:
        if FILE.read_text(encoding="utf-8") == text:
            return 0
        print(f"{FILE.name} is out of date; run `make schema` and commit it", file=sys.stderr)
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
