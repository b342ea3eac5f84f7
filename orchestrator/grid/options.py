"""The options of `python -m eval` as a grid with one dense variant, and a grid's errors in the words of the options.

A setting that is a mapping in a grid is one here, too: written in YAML (`'{name: MATH-500, first: 50}'`), or read from
a file (`@format.yaml`). All settings are checked as a grid's are.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from eval.built_in import BUILT_IN
from eval.formats import FORMATS
from eval.modes import MODES
from eval.spec import PROMPT_PRESETS
from orchestrator.grid.errors import InputError
from orchestrator.grid.parse import DTYPES
from orchestrator.grid.source import GridSource, Location, location_text

OPTIONS: Mapping[str, str] = {
    "store": "--output",
    "models": "MODEL_DIR",
    "models.format": "--format",
    "models.dtype": "--dtype",
    "token_limits": "--limits",
    "benchmarks": "--benchmark",
    "prompt.preset": "--prompt",
    "prompt.template": "--template",
    "prompt.system": "--system",
    "sampling.temperature": "--temperature",
    "sampling.top_p": "--top-p",
    "sampling.top_k": "--top-k",
    "sampling.min_p": "--min-p",
    "sampling.seeds": "--seeds",
    "budget.mode": "--budget",
    "budget.answer_tokens": "--answer-tokens",
    "budget.wait": "--wait",
    "budget.wait_text": "--wait-text",
    "budget.independent_limits": "--independent-limits",
    "runtime": "--runtime",
}
"""A grid's key -> the option that sets it."""

COMMAND_LINE = "command line"
_SAID = {key.replace("models.", "models[]."): option for key, option in OPTIONS.items() if "." in key or "_" in key}
_KEY = re.compile(rf"(?<![\w.])(?:{'|'.join(re.escape(key) for key in sorted(_SAID, key=len, reverse=True))})(?!\w)")
"""A setting as error messages name it: `sampling.top_k`, `models[].format`."""


@dataclass(frozen=True)
class OptionsSource(GridSource):
    """A grid that was written as options."""

    def where(self, location: Location) -> str:
        """`--benchmark`, `--format: start`; a group of settings that is no option is only the command line."""
        keys = [step for step in location if isinstance(step, str)]
        for length in range(len(keys), 0, -1):
            if option := OPTIONS.get(".".join(keys[:length])):
                rest = location_text(tuple(keys[length:]))
                return f"{option}: {rest}" if rest else option
        return COMMAND_LINE


@contextmanager
def in_options() -> Iterator[None]:
    """Within the block, an InputError about a grid's key is one about the option that sets it."""
    try:
        yield
    except InputError as error:
        raise InputError("\n".join(map(_of_options, str(error).splitlines()))) from error


def _of_options(message: str) -> str:
    message = _KEY.sub(lambda key: _SAID[key[0]], message)
    # What begins with the option itself needs no place in front, and a command line has no lines.
    return re.sub(rf"^(?:{COMMAND_LINE}(?::1)?: |(?:--[\w-]+|MODEL_DIR): (?=--))", "", message)


def options_source(options: argparse.Namespace) -> OptionsSource:
    """The options of `eval_parser` as the source of a grid. Raises InputError for a file or YAML that is no good."""
    return OptionsSource(COMMAND_LINE, grid_value(options), {})


def grid_value(options: argparse.Namespace) -> dict[str, Any]:
    """The options as the value of a grid with one variant. Raises InputError as `options_source` does."""
    budget: dict[str, Any] = {"mode": options.budget, "independent_limits": options.independent_limits}
    needed = 1024 if MODES[options.budget].needs_answer_tokens else None
    budget |= _given(answer_tokens=needed) | _given(
        answer_tokens=options.answer_tokens, wait=options.wait, wait_text=options.wait_text
    )
    model = {"path": options.model} | _given(format=_mapping("--format", options.format), dtype=options.dtype)
    sampling = {"temperature": options.temperature, "seeds": options.seeds}
    runtime = _mapping("--runtime", options.runtime) or {}
    if isinstance(runtime, str):
        raise InputError(f"--runtime: {runtime!r} is no mapping; write one, such as '{{tensor_parallel: 2}}'")
    return {
        "name": "eval",
        "store": options.output,
        "models": [model],
        "variants": [{"method": "dense"}],
        "token_limits": options.limits,
        "benchmarks": [_benchmark(text, options.first) for text in options.benchmark],
        "prompt": _given(
            preset=options.prompt,
            template=_text("--template", options.template),
            system=_text("--system", options.system),
        ),
        "sampling": sampling | _given(top_p=options.top_p, top_k=options.top_k, min_p=options.min_p),
        "budget": budget,
        "runtime": {"engines": 1} | runtime,
    }


def eval_parser() -> argparse.ArgumentParser:
    """The command line of `python -m eval`."""
    capped = ", ".join(mode.name for mode in MODES.values() if mode.needs_answer_tokens)
    parser = argparse.ArgumentParser(prog="python -m eval", description="Evaluate one model at several token limits.",
        epilog="YAML: a mapping as in a grid, or @FILE with one. TEXT: a text, or @FILE with one.")  # fmt: skip
    add = parser.add_argument
    add("model", metavar="MODEL_DIR", help="a checkpoint folder, or a cached hub id")
    add("--benchmark", action="append", required=True, metavar="NAME|FILE|YAML",
        help=f"{', '.join(BUILT_IN)}; a JSONL, Parquet or CSV file; NAME=FILE, a local copy; or a part or other "
        "columns, such as '{name: MATH-500, sample: 50, seed: 0}'; repeatable")  # fmt: skip
    add("--first", type=_number, metavar="N", help="only the first N problems of each benchmark")
    add("--limits", type=_numbers, required=True, help="thinking-token limits, such as 512,1024")
    add("--budget", choices=list(MODES), default=next(iter(MODES)), help="how a limit is imposed")
    add("--answer-tokens", type=_number, metavar="N", help=f"cap on the answer; 1024 if left out ({capped})")
    add("--wait", type=_number, metavar="N", help="overrule the first N ends of thinking (s1-legacy)")
    add("--wait-text", metavar="TEXT", help="what to overrule them with; Wait if left out")
    add("--format", metavar="NAME|YAML",
        help=f"how the model thinks: {', '.join(FORMATS)}; detected if left out; or texts of your own, such as "
        r"""'{start: <think>, end: </think>, early_stop: "\n</think>\n"}'""")  # fmt: skip
    add("--dtype", choices=DTYPES, help="of the weights in the engine; the checkpoint's own if left out")
    add("--prompt", metavar="PRESET", help=f"{' or '.join(PROMPT_PRESETS)}; bare if left out")
    add("--template", metavar="TEXT", help="the user turn, with {problem}, instead of a preset")
    add("--system", metavar="TEXT", help="the system turn")
    add("--seeds", type=_numbers, default=[0], help="comma-separated, such as 7,11,42")
    add("--temperature", type=float, default=0.0, help="0 is greedy")
    add("--top-p", type=float, metavar="P", help="1, off, if left out")
    add("--top-k", type=_number, metavar="K", help="0, off, if left out")
    add("--min-p", type=float, metavar="P", help="0, off, if left out")
    add("--independent-limits", action="store_true", help="decode every limit separately, as a check")
    add("--runtime", metavar="YAML", help="engine and grader, as in a grid, such as '{tensor_parallel: 2}'")
    add("--output", required=True, metavar="STORE", help="folder of the store; a second run resumes there")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that are not None; the grid's defaults hold for the others."""
    return {key: value for key, value in settings.items() if value is not None}


def _benchmark(text: str, first: int | None) -> Any:
    entry = _mapping("--benchmark", text)
    if first is None:
        return entry
    if isinstance(entry, str):
        return {"name": entry, "first": first}
    if entry.keys() & {"first", "sample"}:
        raise InputError(f"--first: the benchmark {text} has a part of its own; keep one of the two")
    return entry | {"first": first}


def _mapping(option: str, text: str | None) -> Any:
    """A mapping, if `text` is one in YAML or names a file with one (`@FILE`); else the text itself."""
    if text is None or not text.startswith(("{", "@")):
        return text
    try:
        value = yaml.safe_load(_text(option, text) or "")
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InputError(f"{option}: {text}: not valid YAML: {problem}; quote texts that hold : , {{ or }}") from None
    if not isinstance(value, dict):
        raise InputError(f"{option}: {text} holds no mapping; write keys and values, as in a grid")
    return value


def _text(option: str, text: str | None) -> str | None:
    """`text`, or what the file holds that it names as `@FILE`, without the line break at its end."""
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InputError(f"{option}: {text[1:]}: cannot be read ({reason}); give a file after @, or the text") from None


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not whole numbers with commas between, such as 7,11") from None
