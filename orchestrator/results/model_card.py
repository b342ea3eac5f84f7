"""The model card of an exported variant: where its weights come from, how sparse they are, what was measured. Pure.

README.md as the Hugging Face hub reads it: YAML first, with the results under `model-index`, then text. It names no
folder of this machine.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from huggingface_hub import EvalResult, ModelCardData

from eval.comparison import Comparison
from eval.intervals import Interval
from orchestrator.grid.parse import Grid
from orchestrator.results.cells import AgainstDense, CellResult
from pruning.model.architecture import LINEARS
from pruning.patch.manifest import Manifest
from pruning.spec import DATA_FIELDS, to_json


@dataclass(frozen=True)
class CardFacts:
    """What a card says."""

    label: str
    """What people call the variant."""
    model: str
    """The base as workers are told of it: an absolute path, or `org/name@commit`."""
    grid: Grid
    patch_id: str
    manifest: Manifest
    base_blocks: int
    """How many blocks the base has."""
    digest: str
    """`Checkpoint.digest` of the exported folder."""
    results: Sequence[tuple[CellResult, AgainstDense | None]]
    """The variant's cells, each with its comparison with dense."""

    @property
    def base_id(self) -> str | None:
        """The base's id on the hub, if it was taken from there."""
        return None if PurePath(self.model).is_absolute() else self.model.partition("@")[0]

    @property
    def base_name(self) -> str:
        """What to call the base: its hub id, else its folder's name."""
        return self.base_id or PurePath(self.model).name


def model_card(facts: CardFacts) -> str:
    """The content of README.md."""
    lines = [
        "---",
        _front_matter(facts),
        "---",
        "",
        f"# {facts.base_name}: {facts.label}",
        "",
        _summary(facts),
        "",
        *_usage(),
        "",
        "## Method",
        "",
        *_table(("setting", "value"), _settings(facts.manifest)),
        "",
        *_calibration(facts.manifest),
        "## Sparsity",
        "",
        *_sparsity(facts.manifest, facts.base_blocks),
        "",
        "## Results",
        "",
        *_results(facts),
        "",
        "## Digests",
        "",
        *_table(("what", "SHA-256"), _digests(facts)),
        "",
    ]
    return "\n".join(lines)


def _front_matter(facts: CardFacts) -> str:
    data = ModelCardData(
        base_model=facts.base_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=_tags(facts.manifest),
        model_name=f"{facts.base_name}: {facts.label}",
        eval_results=[_eval_result(cell) for cell, _ in facts.results if cell.metrics.accuracy is not None] or None,
    )
    text: str = data.to_yaml()
    return text.strip()


def _tags(manifest: Manifest) -> list[str]:
    found = ["prunesweep"]
    if manifest.realised > 0:
        found.append("pruned")
    if manifest.spec.path is None:  # the method is known only of what was pruned here
        found.append(manifest.spec.method)
    return found


def _eval_result(cell: CellResult) -> EvalResult:
    interval = cell.metrics.interval
    return EvalResult(
        task_type="text-generation",
        dataset_type=cell.benchmark,
        dataset_name=f"{cell.benchmark}, up to {cell.limit} thinking tokens",
        dataset_config=str(cell.limit),
        metric_type="accuracy",
        metric_name="accuracy",
        metric_value=cell.metrics.accuracy,
        metric_args={"confidence_interval_95": [interval.low, interval.high]} if interval else None,
    )


def _summary(facts: CardFacts) -> str:
    manifest, commit = facts.manifest, facts.model.partition("@")[2]
    pruned = f"{manifest.realised:.2%} of the weights of its blocks' linears are zero or removed."
    if manifest.spec.is_dense:
        pruned = "Its weights are those of the base."
    at = f" at commit `{commit}`" if facts.base_id and commit else ""
    return (
        f"A variant of `{facts.base_name}`{at}, exported from prunesweep's sweep `{facts.grid.name}`. {pruned} "
        "Zeros are stored like all weights, so the model takes as much memory and time as its number of blocks says. "
        "The license is the base model's."
    )


def _usage() -> list[str]:
    return [
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", dtype="auto")',
        'tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")',
        "```",
        "",
        "or `vllm serve THIS_FOLDER`.",
    ]


def _settings(manifest: Manifest) -> Iterator[tuple[object, ...]]:
    for name, value in to_json(manifest.spec).items():
        if name not in DATA_FIELDS:
            yield name, f"`{_unplaced(value) if name == 'path' else value}`"


def _calibration(manifest: Manifest) -> Iterator[str]:
    """A section for each set of calibration data; nothing without any."""
    rows = []
    for name, settings in to_json(manifest.spec).items():
        if name in DATA_FIELDS:
            said = ", ".join(f"{key} {value}" for key, value in settings.items() if key != "data")
            windows = manifest.calibration.get(name)
            rows.append((name, f"`{_unplaced(settings['data'])}`", said, f"`{windows}`" if windows else "–"))
    if rows:
        yield "## Calibration"
        yield ""
        yield from _table(("data", "source", "settings", "SHA-256 of the token windows"), rows)
        yield ""


def _unplaced(source: str) -> str:
    """A file or folder without where it is; a hub id or a built-in name as it is."""
    return PurePath(source).name if PurePath(source).is_absolute() or source.count("/") != 1 else source


def _sparsity(manifest: Manifest, base_blocks: int) -> Iterator[str]:
    """The share of zeros of every layer and linear, and the blocks that are gone."""
    asked = f"Of the weights of the blocks' linears, {manifest.requested:.4f} were asked to go, and"
    if manifest.spec.path is not None:  # what a checkpoint was pruned to is unknown
        asked = "Of the weights of the blocks' linears,"
    yield f"{asked} {manifest.realised:.4f} are zero or removed."
    yield ""
    kept = manifest.kept_layers
    if len(kept) < base_blocks:
        removed = [str(index) for index in range(base_blocks) if index not in kept]
        yield f"{len(removed)} of {base_blocks} blocks are removed; as the base numbers them: {', '.join(removed)}."
        yield ""
    if not manifest.layers:
        yield "No single weight was removed."
        return
    position = {index: place for place, index in enumerate(kept)}
    columns = ("block", "block of the base", "requested", "realised", *(name.split(".")[1] for name in LINEARS))
    yield from _table(
        columns,
        (
            (
                position[layer.index],
                layer.index,
                *(f"{share:.4f}" for share in (layer.requested, layer.realised, *map(layer.modules.get, LINEARS))),
            )
            for layer in manifest.layers
        ),
    )


def _results(facts: CardFacts) -> Iterator[str]:
    if not facts.results:
        yield "This grid does not evaluate the variant."
        return
    yield _protocol(facts.grid)
    yield ""
    columns = ("benchmark", "limit", "accuracy", "minus dense", "p (Holm)", "questions", "draws", "missing")
    yield from _table(columns, (_result(cell, against) for cell, against in facts.results))
    yield ""
    yield (
        "Accuracy and its difference from the dense model, paired by question and seed, with 95 % intervals clustered "
        "by question. p: paired permutation test, Holm-corrected over all comparisons of the sweep. Missing draws have "
        "no grade; they are left out."
    )


def _protocol(grid: Grid) -> str:
    sampling, budget = grid.sampling, grid.budget
    drawn = "greedy decoding"
    if sampling.temperature:
        filters = f"top_p {sampling.top_p:g}, top_k {sampling.top_k}, min_p {sampling.min_p:g}"
        drawn = f"temperature {sampling.temperature:g}, {filters}, seeds {', '.join(map(str, sampling.seeds))}"
    answer = f", answers of up to {budget.answer_tokens} tokens" if budget.answer_tokens else ""
    prompt = (
        f"prompt `{grid.prompt.preset or 'bare'}`" if grid.prompt.template is None else "a prompt of the grid's own"
    )
    return (
        f"Budget mode `{budget.mode}`{answer}; {drawn}; {prompt}; grader `{grid.runtime.grader}`. Limits are thinking "
        "tokens."
    )


def _result(cell: CellResult, against: AgainstDense | None) -> tuple[object, ...]:
    metrics = cell.metrics
    accuracy = "–" if metrics.accuracy is None else _with_interval(metrics.accuracy, metrics.interval)
    compared: Comparison | None = against.comparison if against else None
    difference = _with_interval(compared.difference, compared.interval, sign="+") if compared else "–"
    p = f"{against.adjusted.holm:.3g}" if against else "–"
    missing = metrics.missing + metrics.ungraded
    return cell.benchmark, cell.limit, accuracy, difference, p, metrics.questions, metrics.draws, missing


def _with_interval(value: float, interval: Interval | None, sign: str = "") -> str:
    shown = f"{value:{sign}.3f}"
    return f"{shown} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]" if interval else shown


def _digests(facts: CardFacts) -> Iterator[tuple[object, ...]]:
    yield "checkpoint (tensors and configuration)", f"`{facts.digest}`"
    yield "weights (tensors)", f"`{facts.manifest.weights_digest}`"
    yield "base checkpoint", f"`{facts.manifest.base}`"
    yield "patch (first digits, its id in the store)", f"`{facts.patch_id}`"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(str(value).replace('|', chr(92) + '|') for value in row)} |"
