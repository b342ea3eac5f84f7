"""`python -m pruning MODEL_DIR --method M ...`: prune one checkpoint into a patch, an exported folder or both.

Exits with 0 when done, and with 2 and one message on bad input. With --json, standard output is one JSON object;
progress and messages go to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pruning.allocators import ALLOCATORS, DEFAULT
from pruning.files import unfinished_folder
from pruning.knobs import KNOBS
from pruning.methods import METHODS
from pruning.model.checkpoint import Checkpoint
from pruning.patch.manifest import Manifest
from pruning.resolve import check
from pruning.spec import DATA_FIELDS, PATTERNS, PRESETS, CalibrationSpec, Choice, PruneSpec, Whole, describe

BAD_INPUT: Final = 2


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    try:
        spec = _spec(options)
        check(spec)
        if options["patch"] is None and options["export"] is None:
            raise ValueError("nothing to write: give --patch DIR, --export DIR or both.")
        manifest = _run(Path(options["model_dir"]), spec, options)
    except (ValueError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        print(f"pruning: {error}", file=sys.stderr)
        return BAD_INPUT
    if options["json"]:
        blocks = Checkpoint.open(options["model_dir"]).num_layers
        print(json.dumps(report(manifest, blocks, options["patch"], options["export"])))
    else:
        print(
            f"{describe(manifest.spec)}: {manifest.realised:.4%} of the block weights are zero or removed",
            file=sys.stderr,
        )
    return 0


def report(manifest: Manifest, blocks: int, patch: str | None, export: str | None) -> dict[str, Any]:
    """The object that --json prints. `blocks`: how many the base has."""
    kept = set(manifest.kept_layers)
    return {
        "method": manifest.spec.method,
        "allocator": manifest.spec.allocator,
        "sparsity": {"requested": manifest.requested, "realised": manifest.realised},
        "layers": [
            {
                "index": layer.index,
                "requested": layer.requested,
                "realised": layer.realised,
                "modules": layer.modules,
            }
            for layer in manifest.layers
        ],
        "removed_layers": [layer for layer in range(blocks) if layer not in kept],
        "patch": patch,
        "export": export,
        "seconds": manifest.seconds,
        "peak_memory_bytes": manifest.peak_memory_bytes,
    }


def _run(model_dir: Path, spec: PruneSpec, options: dict[str, Any]) -> Manifest:
    import torch  # after check(): a bad spec fails without loading it

    from pruning.patch.export import export
    from pruning.prune import prune

    device = device_for(options["device"], torch.cuda.is_available())

    for folder in (options["patch"], options["export"]):
        if folder is not None and Path(folder).exists():
            raise ValueError(f"{folder}: already exists; choose another folder or remove it first.")

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    with unfinished_folder(Path(tempfile.gettempdir()), "prunesweep-patch") as scratch:
        patch = Path(options["patch"] or scratch / "patch")
        manifest = prune(model_dir, spec, patch, payload={}, device=device, progress=say)
        if options["export"] is not None:
            export(model_dir, patch, options["export"])
    return manifest


def device_for(named: str | None, gpu: bool) -> str:
    """The device that the user named, else a GPU if there is one."""
    return named or ("cuda" if gpu else "cpu")


def _spec(options: dict[str, Any]) -> PruneSpec:
    chosen = {field.name: options[field.name] for field in fields(PruneSpec) if field.name in options}
    for name in DATA_FIELDS:
        if chosen[name] is not None:
            chosen[name] = CalibrationSpec(
                data=chosen[name],
                samples=options["samples"],
                tokens=options["tokens"],
                seed=options["seed"],
                windows=options["windows"],
                compute=options["compute"],
            )
    return PruneSpec(**chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pruning", description="Prune a Hugging Face checkpoint.")
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="local checkpoint folder")
    parser.add_argument("--method", required=True, help=", ".join(METHODS))
    parser.add_argument("--allocator", help=f"{', '.join(ALLOCATORS)}; default {DEFAULT}")
    parser.add_argument("--sparsity", type=float, help="fraction of the block linears' weights to drop")
    parser.add_argument("--pattern", help=f"{', '.join(PATTERNS)}: drop N of every M consecutive inputs")
    removers = ", ".join(name for name, row in METHODS.built_in.items() if row.removes_blocks)
    parser.add_argument("--blocks", type=int, help=f"blocks to remove; {removers}")
    readers = ", ".join(name for name, row in METHODS.built_in.items() if row.reads_checkpoint)
    parser.add_argument("--path", metavar="DIR", help=f"another checkpoint of the same architecture; {readers}")
    parser.add_argument("--label", help=f"what people call it, default the folder's name; {readers}")
    parser.add_argument("--preset", help=f"{', '.join(PRESETS)}; default {PRESETS[0]}")
    parser.add_argument("--patch", metavar="DIR", help="write the patch here")
    parser.add_argument("--export", metavar="DIR", help="write an ordinary Hugging Face folder here")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ...; default: a GPU if there is one")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    data = parser.add_argument_group("calibration")
    data.add_argument(
        "--calibration", metavar="DATA", help="FILE.jsonl, FILE.parquet, FILE.txt, tokens.npy, c4, pg19 or a hub id"
    )
    data.add_argument("--influence-train", metavar="DATA", help="training samples for gradients; default --calibration")
    data.add_argument("--influence-validation", metavar="DATA", help="validation samples for gradients")
    data.add_argument("--samples", type=int, default=128)
    data.add_argument("--tokens", type=int, default=2048)
    data.add_argument("--seed", type=int, default=0)
    data.add_argument("--windows", help="document or packed")
    data.add_argument("--compute", default="stored", help="stored, bfloat16 or float32")
    knobs = parser.add_argument_group("knobs (default: the preset's value)")
    for name, knob in KNOBS.items():
        choices = f": {', '.join(knob.domain.names)}" if isinstance(knob.domain, Choice) else ""
        kind = str if isinstance(knob.domain, Choice) else int if isinstance(knob.domain, Whole) else float
        knobs.add_argument(f"--{name.replace('_', '-')}", type=kind, help=knob.about + choices)
    return parser


if __name__ == "__main__":
    sys.exit(main())
