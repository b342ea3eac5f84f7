"""The paper's own layer choices (arXiv 2604.25098, section on what each selector prunes), checked on real weights.

    python -m benchmarks.paper_layers --s1 DIR/s1.1-7B --qwen3 DIR/Qwen3-8B --device cuda \\
        --train s1k-train.jsonl --validation s1k-validation.jsonl

Needs the two checkpoints, the hub datasets allenai/c4 and emozilla/pg19 (or a mirror), and a GPU. It has not been run:
neither weights nor network were at hand. What the paper reports, 0-based:

    ShortGPT removes first        s1.1-7B {16, 17}   Qwen3-8B {20, 17}
    OWL (M = 7) prunes most       s1.1-7B {10, 11}   Qwen3-8B {8, 11}
    LayerIF prunes most           s1.1-7B {11, 12}   Qwen3-8B {0, 4}

The paper does not say which samples its influence scores come from, so LayerIF's line is a comparison rather than a
regression test; --train and --validation are JSONL files of `text`, `messages` or `token_ids` and may be left out.
Exit 0 if ShortGPT and OWL agree, 1 if one does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pruning.prune import PruneJob, prune_many
from pruning.spec import CalibrationSpec, PruneSpec

REPORTED = {
    "s1": {"shortgpt": {16, 17}, "owl": {10, 11}, "layerif": {11, 12}},
    "qwen3": {"shortgpt": {20, 17}, "owl": {8, 11}, "layerif": {0, 4}},
}
C4 = CalibrationSpec("c4", samples=128, tokens=2048, seed=0)
# The paper's code cuts books into pieces of 1,024 characters, about 256 tokens, and takes 100 of them.
PG19 = CalibrationSpec("pg19", samples=100, tokens=256, seed=0, windows="document")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--s1", metavar="DIR", help="simplescaling/s1.1-7B")
    parser.add_argument("--qwen3", metavar="DIR", help="Qwen/Qwen3-8B")
    parser.add_argument("--train", metavar="FILE", help="influence training samples")
    parser.add_argument("--validation", metavar="FILE", help="influence validation samples")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    models = {name: folder for name in REPORTED if (folder := getattr(options, name))}
    if not models:
        parser.error("give --s1 DIR, --qwen3 DIR or both")
    agreed = [check(name, Path(folder), options) for name, folder in models.items()]
    return 0 if all(agreed) else 1


def check(name: str, model_dir: Path, options: argparse.Namespace) -> bool:
    """Print found against reported layers of one model; True if ShortGPT and OWL agree."""
    specs = {
        "shortgpt": PruneSpec("shortgpt", blocks=2, preset="paper", calibration=PG19),
        "owl": PruneSpec("magnitude", "owl", 0.2, preset="paper", calibration=C4),
    }
    if options.train and options.validation:
        specs["layerif"] = PruneSpec(
            "magnitude",
            "layerif",
            0.2,
            preset="paper",
            influence_train=CalibrationSpec(options.train),
            influence_validation=CalibrationSpec(options.validation, samples=32),
        )
    with tempfile.TemporaryDirectory() as scratch:
        jobs = [PruneJob(spec, Path(scratch) / selector, {}) for selector, spec in specs.items()]
        manifests = prune_many(model_dir, jobs, device=options.device, progress=lambda s: print(s, file=sys.stderr))
    agree = True
    for selector, manifest in zip(specs, manifests, strict=True):
        if selector == "shortgpt":
            found = set(range(len(manifest.kept_layers) + 2)) - set(manifest.kept_layers)
        else:
            ranked = sorted(manifest.layers, key=lambda layer: layer.requested, reverse=True)
            found = {layer.index for layer in ranked[:2]}
        same = found == REPORTED[name][selector]
        agree &= same or selector == "layerif"
        print(
            f"{name:6} {selector:9} found {sorted(found)} reported {sorted(REPORTED[name][selector])} "
            f"{'agrees' if same else 'DIFFERS'}"
        )
    return agree


if __name__ == "__main__":
    sys.exit(main())
