"""Prompts: the same ids as transformers' apply_chat_template, from the model folder alone, without
importing torch.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from tokenizers import decoders as token_decoders

from eval.problems import Problem
from eval.prompts import ChatTokenizer, prompt_ids, question_text, user_text
from eval.spec import PromptSpec
from tests.support import ROOT

TINY = ROOT / "examples" / "tiny" / "model"

# The structure of the families' published templates (branches, namespaces, filters, whitespace control), reworded.
QWEN25 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are Qwen, a helpful assistant.' }}
    {%- endif %}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are Qwen, a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(is_first=false, system_prompt='') %}"
    "{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}{{bos_token}}{{ns.system_prompt}}"
    "{%- for message in messages %}{%- if message['role'] == 'user' %}{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' %}{{'<｜Assistant｜>' + message['content'] + eos_token}}{%- endif %}"
    "{%- endfor -%}{% if add_generation_prompt %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)

# What else templates use in practice: blocks on lines of their own, loop controls, tojson, the training tag.
ODDITIES = """\
{% for message in messages %}
  {% if message.role == 'skip' %}{% continue %}{% endif %}
  {% generation %}
  {% set inner = message.content | tojson %}
  {% endgeneration %}
{{ message.role }}: {{ message.content | tojson(indent=2) }}{{ inner is defined }} {{ unk_token is defined }}
  {% if loop.index > 3 %}{% break %}{% endif %}
{% endfor %}
{{ '<|im_start|>' }}"""

QUESTIONS = [
    "1+1?",
    'Let $x<3 & y$ be "real".\n\nFind \\boxed{x}.',
    "<think>é 漢字</think>",
    "  spaces  ",
    "<|im_end|>x",
]


def save_model(folder: Path, template: str | list | None, *, as_file: bool = False, eos: object = "<|im_end|>") -> Path:
    """A byte-level tokenizer with the families' special tokens, and a model folder around it."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(bytes_)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<｜User｜>", "<｜Assistant｜>", "<s>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in ("<think>", "</think>")])
    # A post-processor that would put <s> in front: prompts must not get it.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    begin = {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False, "rstrip": False}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": begin, "eos_token": eos}
    if template is not None and not as_file:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None and as_file:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def auto_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer


@pytest.mark.parametrize("as_file", [False, True], ids=["in-config", "as-file"])
@pytest.mark.parametrize("template", [QWEN25, QWEN3, DEEPSEEK, ODDITIES], ids=["qwen2.5", "qwen3", "deepseek", "odd"])
def test_ids_equal_transformers(tmp_path, auto_tokenizer, template, as_file):
    folder = save_model(tmp_path / "model", template, as_file=as_file)
    ours, theirs = ChatTokenizer.load(folder), auto_tokenizer.from_pretrained(folder)
    for question in QUESTIONS:
        for system in (None, "Be brief."):
            turns = [{"role": "system", "content": system}] if system else []
            turns.append({"role": "user", "content": question})
            expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
            assert ours.render(question, system) == tuple(expected)


def test_ids_of_the_tiny_model_equal_transformers(auto_tokenizer):
    ours, theirs = ChatTokenizer.load(TINY), auto_tokenizer.from_pretrained(TINY)
    for question in ("1+1?", "8+5*3-9?"):
        turn = [{"role": "user", "content": question}]
        assert ours.render(question) == tuple(
            theirs.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        )
    assert ours.eos_ids == {ours.token_id("<|end|>")}
    assert ours.decode(ours.encode("<think>1+1=2</think>")) == "<think>1+1=2</think>"


def test_named_templates_use_the_default(tmp_path):
    named = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ messages[0].content }}!"},
    ]
    tokenizer = ChatTokenizer.load(save_model(tmp_path / "a", named))
    assert tokenizer.render_text("hey") == "hey!"
    with pytest.raises(ValueError, match=r"tool_use.*no 'default'.*chat_template\.jinja"):
        ChatTokenizer.load(save_model(tmp_path / "b", named[:1]))


def test_end_tokens_come_from_every_declaration(tmp_path):
    folder = save_model(tmp_path / "model", QWEN3)
    (folder / "config.json").write_text('{"eos_token_id": 5}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [6, 7]}')
    tokenizer = ChatTokenizer.load(folder)
    assert tokenizer.eos_ids == {5, 6, 7, tokenizer.token_id("<|im_end|>")}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"no tokenizer\.json.*use_fast=True"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{}"), "no chat template"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text("{"),
            r"tokenizer_config\.json is not valid JSON",
        ),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"), "not valid Jinja, line 1"),
    ],
)
def test_broken_folders_are_named(tmp_path, spoil, complaint):
    folder = save_model(tmp_path / "model", QWEN3)
    spoil(folder)
    with pytest.raises(ValueError, match=complaint):
        ChatTokenizer.load(folder).render("hey")


def test_a_model_without_an_end_token_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        ChatTokenizer.load(save_model(tmp_path / "model", QWEN3, eos=None))


def test_a_template_that_refuses_a_system_turn_says_so():
    with pytest.raises(ValueError, match=r"\['system', 'user'\].*Drop prompt\.system"):
        ChatTokenizer.load(TINY).render("1+1?", "Be brief.")


def test_characters_the_model_does_not_know_are_named():
    with pytest.raises(ValueError, match=r"has no token for \['é'\] in 'é\?'.*Take those characters out"):
        ChatTokenizer.load(TINY).render("é?")


MATH = Problem("1", "What is \\frac{1}{2}?", "1/2")
CHOICE = Problem("2", "Which one?", "B", ("red", "blue"), (1, 0), "choice")


def test_presets_and_templates():
    assert user_text(MATH, PromptSpec()) == user_text(MATH, PromptSpec("bare")) == MATH.text
    assert user_text(MATH, PromptSpec("boxed")).endswith("put your final answer within \\boxed{}.")
    assert question_text(CHOICE) == "Which one?\n\nA) red\nB) blue"
    assert "letter of your choice within \\boxed{}" in user_text(CHOICE, PromptSpec("boxed"))
    assert user_text(MATH, PromptSpec(template="{problem} /think {x}")) == "What is \\frac{1}{2}? /think {x}"


def test_prompt_ids_are_the_rendered_user_turn():
    tokenizer = ChatTokenizer.load(TINY)
    problem = Problem("1", "1+1?", "2")
    assert tokenizer.decode(prompt_ids(tokenizer, problem, PromptSpec())) == "<|user|>1+1?<|end|><|assistant|>"


def test_rendering_a_prompt_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from eval.prompts import ChatTokenizer, prompt_ids; from eval.benchmarks import load_benchmark\n"
        "import eval.spec, eval.budget, eval.formats, eval.grading, eval.power\n"
        f"ChatTokenizer.load({str(TINY)!r}).render('1+1?')\n"
        "print(sorted({'torch', 'transformers', 'vllm', 'ray', 'sympy', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TINY.parents[2]
    )
    assert result.stdout.strip() == "[]"
