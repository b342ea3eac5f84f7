"""The sampling that a grid asks for, and what its models' authors recommend: only the grid's is ever used."""

import json
from collections.abc import Mapping
from pathlib import Path

from eval.spec import SamplingSpec
from orchestrator.plan.resolved_grid import ResolvedGrid

FIELDS = ("temperature", "top_p", "top_k", "min_p")


def recommended_sampling(model: Path) -> dict[str, float]:
    """What a model's generation_config.json says about sampling, by field; empty if it says nothing or is missing."""
    file = model / "generation_config.json"
    told = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if told.get("do_sample") is False:
        return {}
    return {name: told[name] for name in FIELDS if isinstance(told.get(name), int | float)}


def recommendations(resolved: ResolvedGrid) -> dict[str, dict[str, float]]:
    """Model, as the grid gives it -> what it recommends."""
    folders = {variant.model_label: variant.model_path for variant in resolved.variants}
    return {label: recommended_sampling(Path(folder)) for label, folder in folders.items()}


def sampling_used(sampling: SamplingSpec) -> dict[str, float]:
    """The grid's sampling, by field; of greedy decoding only the temperature counts."""
    values = {name: getattr(sampling, name) for name in FIELDS}
    return values if sampling.temperature > 0 else {"temperature": 0}


def differs(sampling: SamplingSpec, recommended: Mapping[str, float]) -> bool:
    """Whether a recommendation is other than what the grid asks for."""
    used = sampling_used(sampling)
    return any(used.get(name) != value for name, value in recommended.items())


def sampling_words(values: Mapping[str, float]) -> str:
    """`temperature 0.6, top_p 0.95`; filters that are off are left out."""
    if values.get("temperature") == 0:
        return "greedy (temperature 0)"
    off = {"top_p": 1, "top_k": 0, "min_p": 0}
    return ", ".join(f"{name} {value:g}" for name, value in values.items() if off.get(name) != value)
