"""Looks at what a grid names (models, data, tokenizers) and gives every variant, context and question its name.

The effects are reads; nothing is downloaded, computed or written. A hub model or data set that is not in the local
cache is an error with the command that fetches it. Imports no torch: safetensors headers, `tokenizers` and jinja2 do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from eval.benchmarks import Benchmark, load_benchmark
from eval.draws import DrawJob
from eval.modes import make_rules
from eval.prompts import ChatTokenizer, prompt_ids
from eval.rules import Rules, room_to_think
from orchestrator.grid.errors import InputError
from orchestrator.grid.parse import Grid, Model, Variant
from orchestrator.grid.source import Location
from orchestrator.identity import answer_payload, context_payload, gold_id, name_of, patch_payload, prompt_id
from orchestrator.plan.sources import data_digest, local_folder
from pruning.model.architecture import LINEARS, config_of_length
from pruning.model.checkpoint import Checkpoint
from pruning.spec import CalibrationSpec, PruneSpec, describe
from workers.messages import Context, Gold, Shape

DATA_FIELDS = ("calibration", "influence_train", "influence_validation")
PRUNABLE = tuple(f".{linear}.weight" for linear in LINEARS)
"""How the names of tensors end that a method may prune."""


@dataclass(frozen=True)
class Question:
    """One problem of one benchmark, rendered for one model."""

    benchmark: str
    problem_id: str
    prompt_ids: tuple[int, ...]
    gold: Gold


@dataclass(frozen=True)
class Decoding:
    """A context and the token limits that its draws serve: all of them, or one when limits are decoded apart."""

    context: Context
    limits: tuple[int, ...]


@dataclass(frozen=True)
class ResolvedVariant:
    """A variant with everything that names it."""

    label: str
    model_label: str
    model_path: str
    spec: PruneSpec
    patch_id: str
    patch_payload: dict[str, Any]
    decodings: tuple[Decoding, ...]
    """One, or one per limit with `independent_limits`."""
    questions: tuple[Question, ...]
    distinct: tuple[Question, ...]
    """The questions by prompt: the same prompt in two benchmarks is one draw."""
    prunable: int
    """How many weights of the model can be pruned: those of its blocks' linear layers."""
    line: int
    """Where it stands in the grid."""

    @property
    def full_label(self) -> str:
        """What tells it from the variants of every model of the grid."""
        return f"{self.model_label}: {self.label}"

    @property
    def dense(self) -> bool:
        return self.spec.method == "dense"


@dataclass(frozen=True)
class ResolvedGrid:
    """A grid with every name filled in."""

    grid: Grid
    variants: tuple[ResolvedVariant, ...]
    benchmarks: tuple[Benchmark, ...]
    payloads: dict[str, dict[str, Any]]
    """Name -> what it was computed from."""

    @property
    def labels(self) -> dict[str, str]:
        """What people call each patch, by its id."""
        several = len({variant.model_label for variant in self.variants}) > 1
        return {v.patch_id: v.full_label if several else v.label for v in self.variants}

    def dense_of(self, variant: ResolvedVariant) -> ResolvedVariant | None:
        """The dense variant of the same model, which the others are compared with."""
        return next((v for v in self.variants if v.dense and v.model_path == variant.model_path), None)


def resolve_grid(grid: Grid) -> ResolvedGrid:
    """Name everything in `grid`. Raises InputError that names the line of the model or benchmark at fault."""
    benchmarks = tuple(_benchmark(grid, index, name) for index, name in enumerate(grid.benchmarks))
    _refuse_same_names(grid, benchmarks)
    payloads: dict[str, dict[str, Any]] = {}
    models: dict[str, _ResolvedModel] = {}
    data: dict[str, str] = {}
    planned: list[ResolvedVariant] = []
    for variant in grid.variants:
        model = variant.model
        if model.path not in models:
            models[model.path] = _look_at(grid, model, benchmarks, payloads)
            _refuse_same_weights(grid, model, models)
        digests = _digests(grid, variant, data)
        planned.append(_plan_variant(grid, variant, models[model.path], digests, payloads))
    return ResolvedGrid(grid, tuple(planned), benchmarks, payloads)


@dataclass(frozen=True)
class _ResolvedModel:
    """What the variants of one model have in common."""

    label: str
    checkpoint: Checkpoint
    digest: str
    tokenizer_digest: str
    rules: Rules
    answers: str
    """The name of the answers' context."""
    questions: tuple[Question, ...]
    distinct: tuple[Question, ...]
    dtype: str
    prunable: int


def _look_at(
    grid: Grid, model: Model, benchmarks: tuple[Benchmark, ...], payloads: dict[str, dict[str, Any]]
) -> _ResolvedModel:
    place = _place_of(grid, "models", model.path)
    try:
        folder = local_folder(model.path)
        checkpoint = Checkpoint.open(folder)
        tokenizer = ChatTokenizer.load(folder)
        rules = make_rules(grid.budget, tokenizer, tokenizer.eos_ids, checkpoint.context_length, model.format)
        digest, tokenizer_digest = checkpoint.digest(), checkpoint.tokenizer_digest()
    except ValueError as error:
        raise InputError(f"{grid.source.where(place)}: {error}") from error
    questions = tuple(_questions(grid, benchmarks, tokenizer))
    _check_limits(grid, rules, questions, model)
    distinct: dict[str, Question] = {}
    for question in questions:
        distinct.setdefault(question.gold.prompt_id, question)
    stored = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16")
    return _ResolvedModel(
        model.path,
        checkpoint,
        digest,
        tokenizer_digest,
        rules,
        _name(answer_payload(grid.budget, rules.style, rules.tags), payloads),
        questions,
        tuple(distinct.values()),
        stored if model.dtype == "auto" else model.dtype,
        sum(header.numel for name, header in checkpoint.tensors.items() if name.endswith(PRUNABLE)),
    )


def _questions(grid: Grid, benchmarks: tuple[Benchmark, ...], tokenizer: ChatTokenizer) -> list[Question]:
    questions = []
    for index, benchmark in enumerate(benchmarks):
        for problem in benchmark.problems:
            try:
                ids = prompt_ids(tokenizer, problem, grid.prompt)
            except ValueError as error:
                place = grid.source.where(("benchmarks", index))
                raise InputError(f"{place}: problem {problem.id!r}: {error}") from error
            gold = Gold(prompt_id(ids), gold_id(problem), problem.answer, problem.kind, problem.choices or ())
            questions.append(Question(benchmark.name, problem.id, ids, gold))
    return questions


def _check_limits(grid: Grid, rules: Rules, questions: tuple[Question, ...], model: Model) -> None:
    """Refuse limits that some problem cannot reach: its points would silently be those of a lower limit."""
    largest = max(grid.token_limits)
    question = max(questions, key=lambda q: len(q.prompt_ids))
    try:
        room = room_to_think(rules, DrawJob(question.problem_id, question.prompt_ids, 0, (largest,)))
    except ValueError as error:
        raise InputError(f"{grid.source.where(('benchmarks',))}: {error}") from error
    if room < largest:
        raise InputError(
            f"{grid.source.where(('token_limits', _index_of(grid, largest)))}: limit {largest} does not fit: "
            f"{model.path} has a context of {rules.context} tokens, and problem {question.problem_id!r} of "
            f"{question.benchmark} with its prompt and its answer leaves {room} for thinking; use limits up to {room}"
        )


def _digests(grid: Grid, variant: Variant, known: dict[str, str]) -> dict[str, str]:
    """Data field of the variant's spec -> what names its data. `known`: the data that was named before."""
    named = {}
    for field in DATA_FIELDS:
        calibration: CalibrationSpec | None = getattr(variant.spec, field)
        if calibration is None:
            continue
        if calibration.data not in known:
            try:
                known[calibration.data] = data_digest(calibration)
            except ValueError as error:
                raise InputError(f"{grid.source.name}:{variant.line}: {error}") from error
        named[field] = known[calibration.data]
    return named


def _plan_variant(
    grid: Grid,
    variant: Variant,
    model: _ResolvedModel,
    digests: Mapping[str, str],
    payloads: dict[str, dict[str, Any]],
) -> ResolvedVariant:
    spec = variant.spec
    patch = patch_payload(model.digest, spec, digests, model.tokenizer_digest if digests else None)
    patch_id = _name(patch, payloads)
    layers = model.checkpoint.num_layers - (spec.blocks or 0)
    if layers < 1:
        raise InputError(
            f"{grid.source.name}:{variant.line}: blocks {spec.blocks} would remove all {model.checkpoint.num_layers} "
            "blocks of the model; remove fewer"
        )
    try:
        config_of_length(model.checkpoint.config, layers)
    except ValueError as error:
        raise InputError(f"{grid.source.name}:{variant.line}: {model.checkpoint.path}: {error}") from error
    label = describe(spec)
    base = Context(
        context_id="",
        answer_context_id=model.answers,
        shape=Shape(str(model.checkpoint.path.absolute()), layers, model.dtype),
        patch_id=patch_id,
        sampling=replace(grid.sampling, seeds=()),
        budget=grid.budget,
        format=model.rules.style,
        context_length=model.checkpoint.context_length,
        variant=f"{model.label}: {label}",
    )
    apart = grid.budget.independent_limits
    groups = [(limit, (limit,)) for limit in grid.token_limits] if apart else [(None, grid.token_limits)]
    decodings = []
    for limit, limits in groups:
        payload = context_payload(
            patch_id,
            model.dtype,
            grid.sampling,
            grid.budget,
            model.rules.style,
            model.rules.tags,
            sorted(model.rules.eos_ids),
            limit,
        )
        decodings.append(Decoding(replace(base, context_id=_name(payload, payloads)), limits))
    return ResolvedVariant(
        label,
        model.label,
        base.shape.model,
        spec,
        patch_id,
        patch,
        tuple(decodings),
        model.questions,
        model.distinct,
        model.prunable,
        variant.line,
    )


def _name(payload: dict[str, Any], payloads: dict[str, dict[str, Any]]) -> str:
    name = name_of(payload)
    payloads[name] = payload
    return name


def _benchmark(grid: Grid, index: int, name: str) -> Benchmark:
    try:
        return load_benchmark(name)
    except ValueError as error:
        raise InputError(f"{grid.source.where(('benchmarks', index))}: {error}") from error


def _refuse_same_names(grid: Grid, benchmarks: tuple[Benchmark, ...]) -> None:
    seen: dict[str, int] = {}
    for index, benchmark in enumerate(benchmarks):
        if benchmark.name in seen:
            raise InputError(
                f"{grid.source.where(('benchmarks', index))}: two benchmarks are called {benchmark.name!r}; "
                "rename one of the files"
            )
        seen[benchmark.name] = index


def _refuse_same_weights(grid: Grid, model: Model, models: dict[str, _ResolvedModel]) -> None:
    for path, other in models.items():
        if path != model.path and other.digest == models[model.path].digest:
            place = grid.source.where(_place_of(grid, "models", model.path))
            raise InputError(f"{place}: {model.path} has the same weights as {path}; list a model once in a grid")


def _place_of(grid: Grid, key: str, path: str) -> Location:
    for index, entry in enumerate(grid.source.value[key]):
        if path in (entry, entry.get("path") if isinstance(entry, dict) else None):
            return (key, index)
    return (key,)


def _index_of(grid: Grid, limit: int) -> int:
    return list(grid.source.value["token_limits"]).index(limit)
