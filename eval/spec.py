"""What to ask of a model and how: sampling, thinking budget, prompt. Values and their rules; nothing heavy
is imported.

Every check raises ``ValueError`` with the setting, the rule it breaks and the remedy, so that a grid reader
only has to put the place in front. All specs are frozen and compare by value.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, get_args

BudgetMode = Literal["native-strict", "s1-legacy", "none"]
BUDGET_MODES: tuple[str, ...] = get_args(BudgetMode)
PROMPT_PRESETS = ("bare", "boxed")
PROBLEM_SLOT = "{problem}"
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class SamplingSpec:
    """How tokens are drawn. One draw per problem and seed.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``min_p`` 0 switch those filters off; ``top_p`` 1 does
    likewise.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class BudgetSpec:
    """How a token limit is imposed on thinking. ``docs/evaluation.md`` describes the three modes.

    ``answer_tokens`` caps the answer phase; None leaves it as long as the context allows, as s1's harness
    does. ``wait`` is how often a natural end of thinking is overruled by ``wait_text`` (s1-legacy only).
    ``independent_limits`` decodes each limit by itself instead of cutting one trace: the same draws, at
    twice the price.
    """

    mode: BudgetMode
    answer_tokens: int | None = None
    wait: int = 0
    wait_text: str = "Wait"
    independent_limits: bool = False


@dataclass(frozen=True)
class PromptSpec:
    """The user turn. ``preset`` (None means "bare") or a ``template`` holding ``{problem}``; never both."""

    preset: str | None = None
    template: str | None = None
    system: str | None = None


def nearest(word: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known word, or nothing when none is close."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lowered, n=1)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""


def _refuse(setting: str, value: object, rule: str, remedy: str) -> None:
    raise ValueError(f"{setting} is {value!r}, but {rule}. {remedy}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_sampling(spec: SamplingSpec) -> None:
    """Raise ``ValueError`` where ``spec`` cannot be sampled from or would repeat a draw."""
    if not 0.0 <= spec.temperature < float("inf"):
        _refuse("sampling.temperature", spec.temperature, "it must be 0 (greedy) or a finite positive number",
                "Qwen3 recommends 0.6, the paper used 1.0.")  # fmt: skip
    if not 0.0 < spec.top_p <= 1.0:
        _refuse("sampling.top_p", spec.top_p, "it is a probability mass in (0, 1]", "Use 1.0 to switch it off.")
    if not _is_whole(spec.top_k) or spec.top_k < 0:
        _refuse("sampling.top_k", spec.top_k, "it counts tokens", "Use 0 to switch it off.")
    if not 0.0 <= spec.min_p < 1.0:
        _refuse("sampling.min_p", spec.min_p, "it is a share of the top probability in [0, 1)", "Use 0 for none.")
    if not spec.seeds:
        _refuse("sampling.seeds", spec.seeds, "a draw needs a seed", "Give at least one, such as [0].")
    for seed in spec.seeds:
        if not _is_whole(seed) or not 0 <= seed <= LARGEST_SEED:
            _refuse("sampling.seeds", seed, f"seeds are whole numbers from 0 to {LARGEST_SEED}", "Pick another.")
    if len(set(spec.seeds)) < len(spec.seeds):
        _refuse("sampling.seeds", spec.seeds, "a repeated seed is the same draw twice", "List each seed once.")
    if spec.temperature == 0.0 and len(spec.seeds) > 1:
        _refuse("sampling.seeds", spec.seeds, "greedy decoding gives the same draw for every seed",
                "Keep one seed, or set sampling.temperature above 0.")  # fmt: skip


def check_budget(spec: BudgetSpec) -> None:
    """Raise ``ValueError`` where ``spec`` names no budget that can be imposed."""
    if spec.mode not in BUDGET_MODES:
        _refuse("budget.mode", spec.mode, f"the modes are {', '.join(BUDGET_MODES)}",
                f"See docs/evaluation.md.{nearest(str(spec.mode), BUDGET_MODES)}")  # fmt: skip
    if spec.answer_tokens is not None and (not _is_whole(spec.answer_tokens) or spec.answer_tokens < 1):
        _refuse("budget.answer_tokens", spec.answer_tokens, "an answer needs at least one token",
                "Leave it out for no cap but the context.")  # fmt: skip
    if spec.mode == "native-strict" and spec.answer_tokens is None:
        _refuse("budget.answer_tokens", None, "native-strict caps the answer, or thinking moves into it",
                "Set it, for example to 1024.")  # fmt: skip
    if spec.mode == "none" and spec.answer_tokens is not None:
        _refuse("budget.answer_tokens", spec.answer_tokens, "mode none has no answer phase of its own",
                "Leave it out: the token limit caps the whole response.")  # fmt: skip
    if not _is_whole(spec.wait) or spec.wait < 0:
        _refuse("budget.wait", spec.wait, "it counts continuations", "Use 0 for none.")
    if spec.wait and spec.mode != "s1-legacy":
        rule = f"only s1-legacy overrules the end of thinking, and the mode is {spec.mode}"
        _refuse("budget.wait", spec.wait, rule, "Set budget.mode to s1-legacy, or drop budget.wait.")
    if spec.wait and not spec.wait_text:
        _refuse("budget.wait_text", spec.wait_text, "a continuation needs a text", "s1 uses 'Wait'.")


def check_prompt(spec: PromptSpec) -> None:
    """Raise ``ValueError`` where ``spec`` names no prompt, or two."""
    if spec.preset is not None and spec.template is not None:
        _refuse("prompt.preset", spec.preset, "a template is given as well", "Keep one of the two.")
    if spec.preset is not None and spec.preset not in PROMPT_PRESETS:
        _refuse("prompt.preset", spec.preset, f"the presets are {', '.join(PROMPT_PRESETS)}",
                f"Or write your own as prompt.template.{nearest(spec.preset, PROMPT_PRESETS)}")  # fmt: skip
    if spec.template is not None and PROBLEM_SLOT not in spec.template:
        rule = f"it does not contain {PROBLEM_SLOT}, so every problem would read the same"
        _refuse("prompt.template", spec.template, rule, f"Write {PROBLEM_SLOT} where the problem goes.")


def check_limits(limits: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``limits`` (thinking tokens) is a non-empty set of whole numbers ≥ 0."""
    if not limits:
        _refuse("token_limits", limits, "a curve needs at least one point", "Give one, such as [512].")
    for limit in limits:
        if not _is_whole(limit) or limit < 0:
            _refuse(
                "token_limits",
                limit,
                "a limit counts tokens",
                "Use whole numbers; 0 means no thinking at all.",
            )
    if len(set(limits)) < len(limits):
        _refuse("token_limits", limits, "a limit stands there twice", "List each limit once.")
