"""Reads the models, tokenizers and data that a grid names, and gives every patch, context and question its id.

Downloads, computes and writes nothing. A hub model or data set that is not in the local Hugging Face cache is an error
with the command that fetches it. Needs no torch: it reads safetensors headers, and renders prompts with `tokenizers`
and jinja2.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from eval.benchmarks import Benchmark, load_benchmark
from eval.draws import DrawJob
from eval.modes import make_rules
from eval.prompts import ChatTokenizer, prompt_ids
from eval.rules import Rules, room_to_think
from eval.spec import BenchmarkSpec
from orchestrator.grid.calibration import OwnTraces
from orchestrator.grid.errors import InputError
from orchestrator.grid.labels import distinct_labels
from orchestrator.grid.parse import Grid, Model, Variant
from orchestrator.grid.source import Location
from orchestrator.identity import answer_payload, context_payload, gold_id, name_of, patch_payload, prompt_id
from orchestrator.plan.own_traces import stored_data, trace_request, traces_grid
from orchestrator.plan.resolved_grid import (
    AwaitingVariant,
    Decoding,
    Question,
    ResolvedGrid,
    ResolvedVariant,
    TraceRequest,
)
from orchestrator.plan.sources import for_workers, local_folder
from orchestrator.plan.warnings import model_warnings
from pruning.model.architecture import LINEARS, config_of_length
from pruning.model.checkpoint import Checkpoint
from pruning.patch.counterparts import Counterparts
from pruning.resolve import packages
from pruning.spec import DATA_FIELDS, CalibrationSpec, PruneSpec
from workers.messages import Context, Gold, Shape
from workers.sources import data_digest

PRUNABLE = tuple(f".{linear}.weight" for linear in LINEARS)
"""Tensors whose names end so are the ones that methods prune."""


def resolve_grid(grid: Grid, traces_digest: Callable[[str], str | None] = lambda name: None) -> ResolvedGrid:
    """Fill in every id of `grid`. `traces_digest`: name of a `TraceRequest` -> digest of its traces, if stored.

    Raises InputError with the line of the model, variant or benchmark at fault.
    """
    benchmarks = tuple(_benchmark(grid, index, spec) for index, spec in enumerate(grid.benchmarks))
    _refuse_same_names(grid, benchmarks)
    payloads: dict[str, dict[str, Any]] = {}
    models: dict[str, _ResolvedModel] = {}
    data: dict[str, str] = {}
    variants: list[ResolvedVariant] = []
    awaiting: list[AwaitingVariant] = []
    drawn: dict[Hashable, ResolvedGrid] = {}
    labels = distinct_labels(grid)
    for variant, label in zip(grid.variants, labels, strict=True):
        model = variant.model
        if model.path not in models:
            models[model.path] = _resolve_model(grid, model, benchmarks, payloads)
            _refuse_same_weights(grid, model, models)
        variant, requests = _with_stored_traces(grid, variant, label, models[model.path], traces_digest, drawn, data)
        if requests:
            awaiting.append(AwaitingVariant(label, model.path, variant.line, requests))
            continue
        digests = _digests(grid, variant, data)
        variants.append(_resolve_variant(grid, variant, label, models[model.path], digests, payloads))
    warnings = tuple(dict.fromkeys(warning for model in models.values() for warning in model.warnings))
    return ResolvedGrid(grid, tuple(variants), benchmarks, payloads, tuple(awaiting), warnings)


def _with_stored_traces(
    grid: Grid,
    variant: Variant,
    label: str,
    model: "_ResolvedModel",
    traces_digest: Callable[[str], str | None],
    drawn: dict[Hashable, ResolvedGrid],
    data: dict[str, str],
) -> tuple[Variant, tuple[TraceRequest, ...]]:
    """The variant, calibrated on stored traces where it asks for the model's own; and the requests that are not stored.

    `data` gets the digests of those that are. `drawn`: the sweeps that draw traces, resolved for variants before, by
    what tells them apart; extended.
    """
    own = {field: spec for field in DATA_FIELDS if isinstance(spec := getattr(variant.spec, field), OwnTraces)}
    missing = []
    settled: dict[str, CalibrationSpec] = {}
    for field, calibration in own.items():
        key = (
            variant.model.path,
            calibration.problems,
            calibration.temperature,
            calibration.limit,
            calibration.first_seed,
        )
        if key not in drawn:
            drawn[key] = resolve_grid(traces_grid(grid, variant.model, calibration, variant.line))
            _refuse_evaluated(grid, variant, calibration, model.distinct, drawn[key])
        request = trace_request(drawn[key], calibration, variant.spec, label)
        digest = traces_digest(request.name)
        if digest is None:
            missing.append(request)
            continue
        kept = {one.name: getattr(calibration, one.name) for one in fields(CalibrationSpec)}
        settled[field] = CalibrationSpec(**kept | {"data": stored_data(request.name)})
        data[stored_data(request.name)] = digest
    changes: dict[str, Any] = dict(settled)
    return replace(variant, spec=replace(variant.spec, **changes)), tuple(missing)


def _refuse_evaluated(
    grid: Grid, variant: Variant, calibration: OwnTraces, evaluated: tuple[Question, ...], drawn: ResolvedGrid
) -> None:
    """Refuse to calibrate on traces of problems that are evaluated: the weights would be chosen on the test."""
    asked = {question.gold.prompt_id: question for question in evaluated}
    both = [asked[q.gold.prompt_id] for q in drawn.variants[0].distinct if q.gold.prompt_id in asked]
    if both:
        raise InputError(
            f"{grid.source.name}:{variant.line}: calibration.problems: {len(both)} problems of "
            f"{calibration.problems.name} are evaluated as well ({both[0].problem_id!r} of {both[0].benchmark}, say), "
            "and weights chosen on a test's problems say nothing about others; take those out"
        )


@dataclass(frozen=True)
class _ResolvedModel:
    """What all variants of one model share."""

    label: str
    checkpoint: Checkpoint
    digest: str
    tokenizer_digest: str
    rules: Rules
    answer_context_id: str
    questions: tuple[Question, ...]
    distinct: tuple[Question, ...]
    dtype: str
    prunable: int
    warnings: tuple[str, ...]


def _resolve_model(
    grid: Grid, model: Model, benchmarks: tuple[Benchmark, ...], payloads: dict[str, dict[str, Any]]
) -> _ResolvedModel:
    location = _location_of(grid, "models", model.path)
    try:
        folder = local_folder(model.path)
        checkpoint = Checkpoint.open(folder)
        tokenizer = ChatTokenizer.load(folder)
        rules = make_rules(grid.budget, tokenizer, tokenizer.eos_ids, checkpoint.context_length, model.format)
        digest, tokenizer_digest = checkpoint.digest(), checkpoint.tokenizer_digest()
    except ValueError as error:
        raise InputError(f"{grid.source.where(location)}: {error}") from error
    questions = tuple(_questions(grid, benchmarks, tokenizer))
    _check_limits(grid, rules, questions, model)
    distinct: dict[str, Question] = {}
    for question in questions:
        distinct.setdefault(question.gold.prompt_id, question)
    own_dtype = str(checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype") or "bfloat16")
    return _ResolvedModel(
        model.path,
        checkpoint,
        digest,
        tokenizer_digest,
        rules,
        _record_payload(answer_payload(grid.budget, rules.style, rules.tags), payloads),
        questions,
        tuple(distinct.values()),
        own_dtype if model.dtype == "auto" else model.dtype,
        sum(header.numel for name, header in checkpoint.tensors.items() if name.endswith(PRUNABLE)),
        tuple(model_warnings(model.path, tokenizer, grid.budget, checkpoint.context_length)),
    )


def _questions(grid: Grid, benchmarks: tuple[Benchmark, ...], tokenizer: ChatTokenizer) -> list[Question]:
    questions = []
    for index, benchmark in enumerate(benchmarks):
        for problem in benchmark.problems:
            try:
                ids = prompt_ids(tokenizer, problem, grid.prompt)
            except ValueError as error:
                where = grid.source.where(("benchmarks", index))
                raise InputError(f"{where}: problem {problem.id!r}: {error}") from error
            gold = Gold(prompt_id(ids), gold_id(problem), problem.answer, problem.kind, problem.choices or ())
            questions.append(Question(benchmark.name, problem.id, ids, gold, benchmark.typical_tokens))
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
    """Data field of the variant's spec -> digest of its data. `known`: digests computed before, by data; extended."""
    digests = {}
    for field in DATA_FIELDS:
        calibration: CalibrationSpec | None = getattr(variant.spec, field)
        if calibration is None:
            continue
        if calibration.data not in known:
            try:
                known[calibration.data] = data_digest(calibration)
            except ValueError as error:
                raise InputError(f"{grid.source.name}:{variant.line}: {error}") from error
        digests[field] = known[calibration.data]
    return digests


def _check_windows(grid: Grid, variant: Variant, model: _ResolvedModel) -> None:
    """Refuse calibration windows that the model cannot read: its patches could not be made."""
    room = model.checkpoint.context_length
    for field in DATA_FIELDS:
        calibration: CalibrationSpec | None = getattr(variant.spec, field)
        if calibration is not None and calibration.tokens > room:
            raise InputError(
                f"{grid.source.name}:{variant.line}: {field} has windows of {calibration.tokens} tokens, but the "
                f"context of {model.label} is {room}; set its tokens to {room} or less"
            )


def _resolve_variant(
    grid: Grid,
    variant: Variant,
    label: str,
    model: _ResolvedModel,
    digests: Mapping[str, str],
    payloads: dict[str, dict[str, Any]],
) -> ResolvedVariant:
    _check_windows(grid, variant, model)
    spec, pair = _find_checkpoint(grid, variant, model)
    tokenizer, theirs = model.tokenizer_digest if digests else None, pair.checkpoint.digest() if pair else None
    patch = patch_payload(model.digest, spec, digests, tokenizer, theirs, packages(spec))
    patch_id = _record_payload(patch, payloads)
    layers = model.checkpoint.num_layers - (spec.blocks or 0) if pair is None else pair.checkpoint.num_layers
    if layers < 1:
        raise InputError(
            f"{grid.source.name}:{variant.line}: blocks {spec.blocks} would remove all {model.checkpoint.num_layers} "
            "blocks of the model; remove fewer"
        )
    try:
        config_of_length(model.checkpoint.config, layers)
    except ValueError as error:
        raise InputError(f"{grid.source.name}:{variant.line}: {model.checkpoint.path}: {error}") from error
    base = Context(
        context_id="",
        answer_context_id=model.answer_context_id,
        shape=Shape(for_workers(model.label, model.checkpoint.path), layers, model.dtype, model.digest),
        patch_id=patch_id,
        sampling=replace(grid.sampling, seeds=()),
        budget=grid.budget,
        format=model.rules.style,
        context_length=model.checkpoint.context_length,
        variant=f"{model.label}: {label}",
    )
    independent = grid.budget.independent_limits
    groups = [(limit, (limit,)) for limit in grid.token_limits] if independent else [(None, grid.token_limits)]
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
        decodings.append(Decoding(replace(base, context_id=_record_payload(payload, payloads)), limits))
    return ResolvedVariant(
        label,
        model.label,
        str(model.checkpoint.path.absolute()),
        spec,
        patch_id,
        patch,
        tuple(decodings),
        model.questions,
        model.distinct,
        model.prunable,
        variant.line,
    )


def _find_checkpoint(grid: Grid, variant: Variant, model: _ResolvedModel) -> tuple[PruneSpec, Counterparts | None]:
    """The variant's spec with its checkpoint as workers are told of it, and the checkpoint beside its base, if any."""
    spec = variant.spec
    if spec.path is None:
        return spec, None
    try:
        folder = local_folder(spec.path)
        return replace(spec, path=for_workers(spec.path, folder)), Counterparts.open(model.checkpoint, folder)
    except ValueError as error:
        several = len({one.model.path for one in grid.variants}) > 1
        hint = " If it is a variant of another model of this grid, give the two a grid of their own." if several else ""
        raise InputError(f"{grid.source.name}:{variant.line}: path: {error}{hint}") from error


def _record_payload(payload: dict[str, Any], payloads: dict[str, dict[str, Any]]) -> str:
    """The payload's id, under which it is added to `payloads`."""
    payload_id = name_of(payload)
    payloads[payload_id] = payload
    return payload_id


def _benchmark(grid: Grid, index: int, spec: BenchmarkSpec) -> Benchmark:
    try:
        return load_benchmark(spec)
    except ValueError as error:
        raise InputError(f"{grid.source.where(('benchmarks', index))}: {error}") from error


def _refuse_same_names(grid: Grid, benchmarks: tuple[Benchmark, ...]) -> None:
    seen: dict[str, int] = {}
    for index, benchmark in enumerate(benchmarks):
        if benchmark.name in seen:
            raise InputError(
                f"{grid.source.where(('benchmarks', index))}: two benchmarks are called {benchmark.name!r}; "
                "list one of them, or rename its file"
            )
        seen[benchmark.name] = index


def _refuse_same_weights(grid: Grid, model: Model, models: dict[str, _ResolvedModel]) -> None:
    for path, other in models.items():
        if path != model.path and other.digest == models[model.path].digest:
            where = grid.source.where(_location_of(grid, "models", model.path))
            raise InputError(f"{where}: {model.path} has the same weights as {path}; list a model once in a grid")


def _location_of(grid: Grid, key: str, path: str) -> Location:
    for index, entry in enumerate(grid.source.value[key]):
        if path in (entry, entry.get("path") if isinstance(entry, dict) else None):
            return (key, index)
    return (key,)


def _index_of(grid: Grid, limit: int) -> int:
    return list(grid.source.value["token_limits"]).index(limit)
