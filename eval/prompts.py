"""A problem becomes token ids, through the model's own chat template.

Planning a grid needs the ids, which are part of a draw's identity, and must be quick. So the model folder is read with
`tokenizers` and `jinja2` alone: `transformers` would import torch, which takes many seconds. The ids equal those of
`AutoTokenizer.apply_chat_template` (tests/eval/test_prompts.py).
"""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from eval.extraction.choices import choice_letter
from eval.kinds import KINDS
from eval.problems import Problem
from eval.spec import PROBLEM_SLOT, PromptSpec, check_prompt

SPECIAL_TOKEN_FIELDS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


_TAGS = {"generation"}


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's tokens for training; a prompt is rendered as if it were not there."""

    tags = _TAGS

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A scope of its own, because assignments do not leave a call block, which is what transformers emits.
        return jinja2.nodes.Scope(body).set_lineno(line)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes for HTML, which would put \u0026 into a prompt.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _environment() -> ImmutableSandboxedEnvironment:
    """The jinja2 environment that chat templates are written for (transformers, `chat_template_utils`)."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


@dataclass(frozen=True)
class ChatTokenizer:
    """A model's tokenizer and chat template. Build one with `ChatTokenizer.load`.

    `special_tokens` maps the names that a template may use (`bos_token` and so on) to their texts. `eos_ids` are the
    ids that end a response, from every file in which a model declares them.
    """

    source: str
    tokenizer: Tokenizer
    template: str
    special_tokens: dict[str, str]
    eos_ids: frozenset[int]

    @classmethod
    def load(cls, model_dir: str | Path) -> "ChatTokenizer":
        """Read a Hugging Face model folder.

        Raises `ValueError` naming the file if the folder has no fast tokenizer, no chat template or no end token.
        """
        folder = Path(model_dir)
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(
                f"{folder} has no tokenizer.json, and prompts are tokenized with the fast tokenizer only. "
                "Save one: AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)."
            )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        settings = _read_json(folder / "tokenizer_config.json")
        named = {**_read_json(folder / "special_tokens_map.json"), **settings}
        special = {name: text for name in SPECIAL_TOKEN_FIELDS if (text := _token_text(named.get(name))) is not None}
        return cls(
            source=str(folder),
            tokenizer=tokenizer,
            template=_chat_template(folder, settings),
            special_tokens=special,
            eos_ids=_eos_ids(folder, tokenizer, special),
        )

    def encode(self, text: str) -> list[int]:
        """The token ids of `text`. No special tokens are added; those spelled out in it are recognized."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int] | tuple[int, ...]) -> str:
        """The text of `ids`, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def token_id(self, text: str) -> int | None:
        """The id of the single token spelled `text`, or None if the vocabulary has none."""
        found: int | None = self.tokenizer.token_to_id(text)
        return found

    def render_text(self, user_text: str, system: str | None = None) -> str:
        """The prompt as text: the chat template with a user turn (and a system turn), up to the assistant's turn.

        Raises `ValueError` if the template refuses the turns.
        """
        turns = [{"role": "system", "content": system}] if system is not None else []
        turns.append({"role": "user", "content": user_text})
        try:
            return self._compiled.render(
                messages=turns, tools=None, documents=None, add_generation_prompt=True, **self.special_tokens
            )
        except jinja2.TemplateError as error:
            raise ValueError(
                f"The chat template of {self.source} refuses this conversation "
                f"({[t['role'] for t in turns]}): {error}. Drop prompt.system if the model takes no system "
                "turn, or correct the template."
            ) from error

    def render(self, user_text: str, system: str | None = None) -> tuple[int, ...]:
        """The prompt as token ids, exactly as the engine receives them.

        Raises `ValueError` if the template refuses the turns, or if the vocabulary lacks a character: the unknown token
        in its place would silently make it another problem.
        """
        text = self.render_text(user_text, system)
        ids = tuple(self.encode(text))
        unknown = self.special_tokens.get("unk_token")
        if unknown is not None and unknown not in text and self.token_id(unknown) in ids:
            lost = sorted({character for character in text if self.token_id(unknown) in self.encode(character)})
            raise ValueError(
                f"The tokenizer of {self.source} has no token for {lost} in {user_text[:80]!r}. Take those characters "
                "out of the problem."
            )
        return ids

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return _environment().from_string(self.template)
        except jinja2.TemplateSyntaxError as error:
            raise ValueError(
                f"The chat template of {self.source} is not valid Jinja, line {error.lineno}: "
                f"{error.message}. Compare it with the published model's."
            ) from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}. Download the file again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not an object. Download the file again.")
    return content


def _token_text(token: Any) -> str | None:
    """The text of a special token, which is written as a string or as an object with the string as its `content`."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _chat_template(folder: Path, settings: dict[str, Any]) -> str:
    """The template in `chat_template.jinja`, else the one in `tokenizer_config.json`: a string, or the "default" of a
    list of named ones.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        if "default" not in named:
            raise ValueError(
                f"{folder / 'tokenizer_config.json'} names the chat templates {sorted(named)} and no "
                "'default', so it is not clear which one to use. Save the right one as "
                "chat_template.jinja in that folder."
            )
        template = named["default"]
    if not isinstance(template, str):
        raise ValueError(
            f"{folder} has no chat template (neither chat_template.jinja nor chat_template in "
            "tokenizer_config.json), and a prompt is built through the model's own. Add the template of "
            "the chat model it was made from."
        )
    return template


def _eos_ids(folder: Path, tokenizer: Tokenizer, special: dict[str, str]) -> frozenset[int]:
    """The union of what generation_config.json, config.json and the tokenizer declare: any of these ends a response."""
    ids: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        declared = _read_json(folder / name).get("eos_token_id")
        ids.update(declared if isinstance(declared, list) else [] if declared is None else [declared])
    if (eos := special.get("eos_token")) is not None and (eos_id := tokenizer.token_to_id(eos)) is not None:
        ids.add(eos_id)
    if not ids:
        raise ValueError(
            f"{folder} declares no end-of-sequence token (generation_config.json, config.json, "
            "tokenizer_config.json), so no answer could end. Set eos_token_id in generation_config.json."
        )
    return frozenset(ids)


def question_text(problem: Problem) -> str:
    """The problem as put to the model: choices follow after a blank line as lines `A) ...`, as in s1's harness."""
    if problem.choices is None:
        return problem.text
    lines = [f"{choice_letter(index)}) {choice}" for index, choice in enumerate(problem.choices)]
    return problem.text + "\n\n" + "\n".join(lines)


def user_text(problem: Problem, spec: PromptSpec) -> str:
    """The user turn: `problem` in the words of `spec`. Raises `ValueError` for a spec that names no prompt."""
    check_prompt(spec)
    question = question_text(problem)
    if spec.template is not None:
        # Not str.format: templates and problems are full of LaTeX braces.
        return spec.template.replace(PROBLEM_SLOT, question)
    if spec.preset == "boxed":
        return question + KINDS[problem.kind].boxed
    return question


def prompt_ids(tokenizer: ChatTokenizer, problem: Problem, spec: PromptSpec) -> tuple[int, ...]:
    """The token ids of the rendered prompt. They are part of the identity of every draw made from it."""
    return tokenizer.render(user_text(problem, spec), spec.system)
