"""The settings of an evaluation: sampling, thinking budget, prompt, token limits, and the rules they must obey.

A check raises `ValueError` with the setting, the rule it breaks and the remedy; the caller puts the location in front.
A budget is checked by `eval.modes.check_budget`, since each mode has rules of its own. All specs are frozen and compare
by value. Nothing heavy is imported.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import NoReturn

PROMPT_PRESETS = ("bare", "boxed")
PROBLEM_SLOT = "{problem}"
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class SamplingSpec:
    """How tokens are sampled; there is one draw per problem and seed.

    `temperature` 0 is greedy decoding. `top_p` 1, `top_k` 0 and `min_p` 0 each switch that filter off.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class BudgetSpec:
    """How a token limit is imposed on thinking. `docs/evaluation.md` describes the modes.

    `mode` is a name in `eval.modes.MODES`. `answer_tokens` caps the answer phase; None lets it fill the context, as
    s1's harness does. `wait` is how many natural ends of thinking are overruled with `wait_text` (s1-legacy only).
    `independent_limits` decodes every limit separately instead of cutting one trace: the same draws at about twice the
    cost, as a check.
    """

    mode: str
    answer_tokens: int | None = None
    wait: int = 0
    wait_text: str = "Wait"
    independent_limits: bool = False


@dataclass(frozen=True)
class PromptSpec:
    """The user turn: a `preset` (None means "bare") or a `template` that contains `{problem}`, never both."""

    preset: str | None = None
    template: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class BenchmarkSpec:
    """A benchmark, or a part of one.

    `name` is a built-in name, a file, or `NAME=FILE`, a local copy of a built-in. `first` takes the first so many
    problems; `sample` takes so many by a hash of `seed` (None is 0) and each problem's id. `rows` "any" accepts a copy
    that has another number of rows than the pinned data. `columns` are pairs: `id`, `problem`, `answer` or `choices`,
    and what a file of one's own calls it.
    """

    name: str
    first: int | None = None
    sample: int | None = None
    seed: int | None = None
    rows: str | None = None
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def part(self) -> str:
        """What the name in tables says of the part: `first 50`, `sample 50 seed 0`; empty for the whole."""
        if self.first is not None:
            return f"first {self.first}"
        return "" if self.sample is None else f"sample {self.sample} seed {self.seed or 0}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A suggestion to append to an error, " Did you mean 'x'?" with the closest known word; empty if none is close."""
    lowered = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lowered, n=1)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""


def refuse(setting: str, value: object, rule: str, remedy: str) -> NoReturn:
    """Raise `ValueError` for a setting that breaks a rule."""
    raise ValueError(f"{setting} is {value!r}, but {rule}. {remedy}")


def is_whole(value: object) -> bool:
    """Whether `value` is an integer and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_sampling(spec: SamplingSpec) -> None:
    """Raise `ValueError` if `spec` is no valid sampling setting, or would make the same draw twice."""
    if not 0.0 <= spec.temperature < float("inf"):
        refuse("sampling.temperature", spec.temperature, "it must be 0 (greedy) or a finite positive number",
                "Qwen3 recommends 0.6, the paper used 1.0.")  # fmt: skip
    if not 0.0 < spec.top_p <= 1.0:
        refuse("sampling.top_p", spec.top_p, "it is a probability mass in (0, 1]", "Use 1.0 to switch it off.")
    if not is_whole(spec.top_k) or spec.top_k < 0:
        refuse("sampling.top_k", spec.top_k, "it counts tokens", "Use 0 to switch it off.")
    if not 0.0 <= spec.min_p < 1.0:
        refuse("sampling.min_p", spec.min_p, "it is a share of the top probability in [0, 1)", "Use 0 for none.")
    if not spec.seeds:
        refuse("sampling.seeds", spec.seeds, "a draw needs a seed", "Give at least one, such as [0].")
    for seed in spec.seeds:
        if not is_whole(seed) or not 0 <= seed <= LARGEST_SEED:
            refuse("sampling.seeds", seed, f"seeds are whole numbers from 0 to {LARGEST_SEED}", "Pick another.")
    if len(set(spec.seeds)) < len(spec.seeds):
        refuse("sampling.seeds", spec.seeds, "a repeated seed is the same draw twice", "List each seed once.")
    if spec.temperature == 0.0 and len(spec.seeds) > 1:
        refuse("sampling.seeds", spec.seeds, "greedy decoding gives the same draw for every seed",
                "Keep one seed, or set sampling.temperature above 0.")  # fmt: skip


def check_prompt(spec: PromptSpec) -> None:
    """Raise `ValueError` if `spec` names no known prompt, or two."""
    if spec.preset is not None and spec.template is not None:
        refuse("prompt.preset", spec.preset, "a template is given as well", "Keep one of the two.")
    if spec.preset is not None and spec.preset not in PROMPT_PRESETS:
        refuse("prompt.preset", spec.preset, f"the presets are {', '.join(PROMPT_PRESETS)}",
                f"Or write your own as prompt.template.{nearest(spec.preset, PROMPT_PRESETS)}")  # fmt: skip
    if spec.template is not None and PROBLEM_SLOT not in spec.template:
        rule = f"it does not contain {PROBLEM_SLOT}, so every problem would read the same"
        refuse("prompt.template", spec.template, rule, f"Write {PROBLEM_SLOT} where the problem goes.")


def check_limits(limits: tuple[int, ...]) -> None:
    """Raise `ValueError` unless `limits`, in thinking tokens, are distinct whole numbers ≥ 0, at least one."""
    if not limits:
        refuse("token_limits", limits, "a curve needs at least one point", "Give one, such as [512].")
    for limit in limits:
        if not is_whole(limit) or limit < 0:
            refuse("token_limits", limit, "a limit counts tokens", "Use whole numbers; 0 means no thinking at all.")
    if len(set(limits)) < len(limits):
        refuse("token_limits", limits, "one limit is listed twice", "List each limit once.")


def check_benchmark(spec: BenchmarkSpec) -> None:
    """Raise `ValueError` if `spec` asks for no part that a benchmark can have."""
    if spec.first is not None and spec.sample is not None:
        refuse("sample", spec.sample, f"first is {spec.first} as well, and a part is one or the other", "Drop one.")
    for setting, count in (("first", spec.first), ("sample", spec.sample)):
        if count is not None and (not is_whole(count) or count < 1):
            refuse(setting, count, "a part has at least one problem", "Give how many, or drop it for the whole.")
    if spec.seed is not None and spec.sample is None:
        refuse("seed", spec.seed, "only a sample is drawn by a seed", "Drop it, or say sample instead of first.")
    if spec.seed is not None and (not is_whole(spec.seed) or not 0 <= spec.seed <= LARGEST_SEED):
        refuse("seed", spec.seed, f"seeds are whole numbers from 0 to {LARGEST_SEED}", "Pick another.")
    if spec.rows not in (None, "any"):
        refuse("rows", spec.rows, "it only says that a copy may have any number of rows", "Write any, or drop it.")
