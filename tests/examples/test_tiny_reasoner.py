"""The shipped tiny reasoner: its headline numbers, by transformers' own generation, and its files."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import jinja2
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.tiny import chains, measure, train

TINY = Path(chains.__file__).parent
MODEL = TINY / "model"
BENCHMARK_FILES = tuple(f"chain-{name}.jsonl" for name in ("mixed", "short", "long", "plus"))
PER_FILE = 25


def rows_of(name):
    return [json.loads(line) for line in (TINY / name).read_text(encoding="utf-8").splitlines()]


def naive_answer(problem):
    """Left to right in whole numbers, one remainder at the end: not how ``chains.py`` does it."""
    value = int(problem[0])
    for operator, digit in re.findall(r"([-+*])(\d)", problem):
        value = {"+": value + int(digit), "-": value - int(digit), "*": value * int(digit)}[operator]
    return str(value % 10)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def sample():
    return [row for name in BENCHMARK_FILES for row in rows_of(name)[:PER_FILE]]


@pytest.fixture(scope="module")
def reasoner():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield measure.load()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def dense_curve(reasoner, sample):
    answers = measure.limited_answers(reasoner, [row["problem"] for row in sample])
    return {limit: measure.accuracy(found, sample) for limit, found in answers.items()}


def full_thinking_accuracy(reasoner, sample):
    answers = measure.limited_answers(reasoner, [row["problem"] for row in sample], limits=(128,))
    return measure.accuracy(answers[128], sample)


# The checkpoint


def test_the_checkpoint_is_small_and_ordinary():
    model = AutoModelForCausalLM.from_pretrained(MODEL)
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert "auto_map" not in config
    assert config["tie_word_embeddings"] is False
    assert config["num_hidden_layers"] == 4
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 4 * 2**20
    assert model.config.eos_token_id == AutoTokenizer.from_pretrained(MODEL).eos_token_id


def test_unlimited_thinking_is_right(reasoner, sample):
    answers = measure.unlimited_answers(reasoner, [row["problem"] for row in sample])
    assert measure.accuracy(answers, sample) >= 0.97


def test_accuracy_climbs_from_near_chance_to_about_one(dense_curve):
    assert list(dense_curve) == [8, 16, 32, 64, 128]
    accuracies = list(dense_curve.values())
    assert all(less < more for less, more in pairwise(accuracies))
    assert accuracies[0] <= 0.3
    assert accuracies[-1] >= 0.97


def test_long_chains_cannot_be_guessed(reasoner):
    """Nine operations and more, one step of thinking at most: ten answers, all alike."""
    rows = rows_of("chain-long.jsonl")
    answers = measure.limited_answers(reasoner, [row["problem"] for row in rows], limits=(8,))[8]
    assert None not in answers
    assert measure.accuracy(answers, rows) <= 0.2


@pytest.mark.parametrize("sparsity", [0.1, 0.2])
def test_light_magnitude_pruning_leaves_it(reasoner, sample, dense_curve, sparsity):
    pruned = measure.magnitude_pruned(reasoner, sparsity)
    assert full_thinking_accuracy(pruned, sample) >= dense_curve[128] - 0.03


def test_half_the_weights_gone_hurts(reasoner, sample, dense_curve):
    pruned = measure.magnitude_pruned(reasoner, 0.5)
    assert full_thinking_accuracy(pruned, sample) <= dense_curve[128] - 0.15


@pytest.mark.parametrize(("block", "at_most"), [(0, 0.1), (1, 0.2), (2, 0.2), (3, 0.9)])
def test_no_block_can_be_spared(reasoner, sample, block, at_most):
    """Without one of the first three it guesses at best; without the last it stumbles, most on long chains."""
    assert full_thinking_accuracy(measure.without_block(reasoner, block), sample) <= at_most


# Tokenizer and chat template

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))


MARKERS = ("<think>", "</think>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")


@given(parts=st.lists(st.text(ALPHABET) | st.sampled_from([*MARKERS, "<|im_start|>"])))
def test_text_survives_the_tokenizer(tokenizer, parts):
    text = "".join(parts)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_one_token_per_character_and_per_marker(tokenizer):
    assert len(tokenizer.encode(ALPHABET)) == len(ALPHABET)
    for marker in MARKERS:
        assert tokenizer.encode(marker) == [tokenizer.convert_tokens_to_ids(marker)]
    assert len(tokenizer.encode("<|im_start|>")) == len("<|im_start|>")


def test_what_the_tokenizer_cannot_spell_is_marked_rather_than_dropped(tokenizer):
    assert tokenizer.decode(tokenizer.encode("7×5")) == "7<|unk|>5"


def test_skipping_special_tokens_keeps_the_thinking_marked(tokenizer):
    ids = tokenizer.encode("<|assistant|><think>7+5=2;</think>\\boxed{2}<|end|>")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>7+5=2;</think>\\boxed{2}"
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|end|>", "<|pad|>", None)


def test_the_chat_template_renders_turns(tokenizer):
    turns = [
        {"role": "user", "content": "7+5?"},
        {"role": "assistant", "content": "<think>7+5=2;</think>\\boxed{2}"},
        {"role": "user", "content": " 1-2?\n"},
    ]
    rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|user|>7+5?<|end|><|assistant|><think>7+5=2;</think>\\boxed{2}<|end|><|user|> 1-2?\n<|end|><|assistant|>"
    )
    assert tokenizer.apply_chat_template(turns[:1], tokenize=False) == "<|user|>7+5?<|end|>"


def test_the_chat_template_refuses_a_system_turn(tokenizer):
    with pytest.raises(jinja2.TemplateError, match="drop the 'system' turn"):
        tokenizer.apply_chat_template([{"role": "system", "content": "Be brief."}], tokenize=False)


# Data


def test_the_data_files_regenerate_byte_for_byte(tmp_path):
    chains.write_data(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*BENCHMARK_FILES, "calibration.jsonl"}
    for name in names:
        assert (tmp_path / name).read_bytes() == (TINY / name).read_bytes(), name


@pytest.mark.parametrize("name", BENCHMARK_FILES)
def test_benchmark_answers_are_right_and_balanced(name):
    rows = rows_of(name)
    stem = name.removeprefix("chain-").removesuffix(".jsonl")
    assert [row["id"] for row in rows] == [f"{stem}-{index:03d}" for index in range(100)]
    for row in rows:
        assert re.fullmatch(r"\d([-+]\d|\*[379]){1,16}\?", row["problem"])
        assert row["answer"] == naive_answer(row["problem"]), row
    assert set(Counter(row["answer"] for row in rows).values()) == {10}


def test_benchmark_lengths_are_spread():
    def lengths(name):
        return Counter(len(row["problem"]) // 2 - 1 for row in rows_of(name))

    assert sorted(lengths("chain-mixed.jsonl")) == sorted(lengths("chain-plus.jsonl")) == list(range(1, 17))
    assert sorted(lengths("chain-short.jsonl")) == [1, 2, 3, 4]
    assert sorted(lengths("chain-long.jsonl")) == list(range(9, 17))
    assert set(lengths("chain-mixed.jsonl").values()) == {6, 7}


def test_no_problem_stands_twice_or_in_training_or_calibration():
    problems = [row["problem"] for name in BENCHMARK_FILES for row in rows_of(name)]
    assert len(set(problems)) == len(problems) == 400

    calibration = {
        problem
        for row in rows_of("calibration.jsonl")
        for problem in re.findall(r"<\|user\|>(.*?)<\|end\|>", row["text"])
    }
    assert len(calibration) > 400
    assert not calibration & set(problems)

    held_out = chains.held_out_problems()
    assert held_out == set(problems)

    def drawn(refused):
        rng = Random(5)
        return {chains.problem_text(chains.sample_training_chain(rng, refused)) for _ in range(5000)}

    assert drawn(frozenset()) & held_out, "the draw is too small to show that refusing matters"
    assert not drawn(held_out) & held_out


def test_calibration_documents_hold_a_window_and_read_as_the_template_renders(tokenizer):
    rows = rows_of("calibration.jsonl")
    assert len(rows) >= 128
    for row in rows:
        assert len(row["text"]) >= 200
        assert len(tokenizer.encode(row["text"])) >= 200
        turns = [
            {"role": role, "content": content}
            for role, content in re.findall(r"<\|(user|assistant)\|>(.*?)<\|end\|>", row["text"])
        ]
        assert tokenizer.apply_chat_template(turns, tokenize=False) == row["text"]
        for user, assistant in zip(turns[::2], turns[1::2], strict=True):
            assert assistant["content"].endswith(rf"</think>\boxed{{{naive_answer(user['content'])}}}")


def test_training_examples_cut_anywhere_and_still_aim_at_the_truth(tokenizer):
    """A cut may fall after ``<think>`` or inside a step; its answer bears loss, its ``</think>`` none."""
    rng, close = Random(3), tokenizer.convert_tokens_to_ids("</think>")
    kept_lengths = []
    for _ in range(600):
        example = train.make_example(rng, tokenizer, frozenset(), cut_share=0.3)
        text = tokenizer.decode(example.ids)
        found = re.fullmatch(r"<\|user\|>(.*)<\|end\|><\|assistant\|><think>(.*)</think>\\boxed\{(\d)\}<\|end\|>", text)
        problem, thinking, answer = found.groups()
        assert answer == naive_answer(problem)
        at = example.ids.index(close)
        start = len(problem) + 3
        cut = len(thinking) < 6 * (len(problem) // 2 - 1)
        assert not any(example.counted[:start])
        assert all(example.counted[start:at])
        assert example.counted[at] is not cut
        assert all(example.counted[at + 1 :])
        if cut:
            kept_lengths.append(len(thinking))
    assert 0.25 <= len(kept_lengths) / 600 <= 0.35
    assert 0 in kept_lengths
    assert {length % 6 for length in kept_lengths} == set(range(6))
