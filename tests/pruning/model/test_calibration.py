"""Windows: drawn as the wanda repository draws them, packed, or taken exactly; bad data is refused with numbers."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pruning.model.calibration import load_tokenizer, load_windows, load_windows_apart, windows_digest
from pruning.model.checkpoint import Checkpoint
from pruning.spec import CalibrationSpec
from tests.support import ROOT

TINY = ROOT / "examples" / "tiny"


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return Checkpoint.open(TINY / "model")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY / "model")


@pytest.fixture
def texts(tmp_path):
    rows = [{"text": "".join(random.Random(i).choices("0123456789+-= ", k=5 * i + 3))} for i in range(40)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return file, [row["text"] for row in rows]


def test_document_windows_are_the_wanda_repositorys(base, tokenizer, texts):
    file, documents = texts
    spec = CalibrationSpec(str(file), samples=9, tokens=48, seed=3, windows="document")
    random.seed(3)  # locuslab/wanda lib/data.py, with the module-level generator it uses
    expected = []
    for _ in range(9):
        while True:
            tokens = tokenizer(documents[random.randint(0, len(documents) - 1)])["input_ids"]
            if len(tokens) > 48:
                break
        start = random.randint(0, len(tokens) - 48 - 1)
        expected.append(tokens[start : start + 48])
    np.testing.assert_array_equal(load_windows(spec, base), expected)


def test_packed_windows_hold_whole_documents_in_shuffled_order(base, tokenizer, texts):
    file, documents = texts
    spec = CalibrationSpec(str(file), samples=8, tokens=64, seed=1)
    order = list(range(len(documents)))
    random.Random(1).shuffle(order)
    stream = [i for at in order for i in [*tokenizer(documents[at])["input_ids"], tokenizer.eos_token_id]]
    np.testing.assert_array_equal(load_windows(spec, base), np.array(stream[: 8 * 64]).reshape(8, 64))
    assert windows_digest(load_windows(spec, base)) == windows_digest(load_windows(spec, base))


def test_seed_and_shape_change_the_digest(base, texts):
    file, _ = texts
    specs = [
        CalibrationSpec(str(file), 8, 64, 1),
        CalibrationSpec(str(file), 8, 64, 2),
        CalibrationSpec(str(file), 4, 64, 1),
    ]
    assert len({windows_digest(load_windows(spec, base)) for spec in specs}) == 3


def test_chat_messages_pass_through_the_models_template(base, tokenizer, tmp_path):
    messages = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]
    file = tmp_path / "chat.jsonl"
    file.write_text((json.dumps({"messages": messages}) + "\n") * 3)
    tokens = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
    windows = load_windows(CalibrationSpec(str(file), samples=1, tokens=len(tokens)), base)
    np.testing.assert_array_equal(windows[0], tokens)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_reasoning_traces_are_rows_of_token_ids_and_need_no_tokenizer(checkpoints, tmp_path, kind):
    rows = [list(range(i, i + 10)) for i in range(8)]
    file = tmp_path / f"traces.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"token_ids": rows, "variant": ["dense"] * 8}), file)
    else:
        file.write_text("".join(json.dumps({"token_ids": row}) + "\n" for row in rows))
    windows = load_windows(CalibrationSpec(str(file), samples=4, tokens=20), Checkpoint.open(checkpoints["qwen3"]))
    assert sorted(map(tuple, windows.reshape(8, 10).tolist())) == [tuple(row) for row in rows]


def test_exact_windows_are_taken_as_they_are(checkpoints, windows_file):
    windows = load_windows(CalibrationSpec(str(windows_file)), Checkpoint.open(checkpoints["qwen3"]))
    np.testing.assert_array_equal(windows, np.load(windows_file))


def test_shipped_calibration_data_loads(base):
    assert load_windows(CalibrationSpec(str(TINY / "calibration.jsonl"), 16, 128), base).shape == (16, 128)


def written(folder, name, content):
    file = folder / name
    if isinstance(content, str):
        file.write_text(content)
    else:
        np.save(file, content)
    return str(file)


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        (
            "few.jsonl",
            '{"text": "1+1=2"}\n',
            {"samples": 9, "tokens": 64},
            r"too few calibration tokens: \d+ of 9 x 64",
        ),
        ("few.jsonl", '{"text": "1+1"}\n', {"tokens": 64, "windows": "document"}, "no document is longer than 64"),
        ("bad.jsonl", '{"text": "1"}\n{"text"\n', {}, r"bad\.jsonl, line 2: not JSON"),
        ("long.jsonl", '{"text": "1"}\n', {"tokens": 10**6}, "exceed the model's context"),
        ("text.csv", "a,b\n", {}, "unknown kind of calibration file"),
        ("flat.npy", np.arange(5), {}, r"expected int64 \[samples >= 1, tokens >= 2\], found int64 \[5\]"),
        ("half.npy", np.ones((2, 8), np.float16), {}, "found float16"),
        ("alien.npy", np.full((2, 8), 10**6), {}, "token ids run from 1000000"),
        ("objects.npy", np.array([[{}]], dtype=object), {}, "not a plain .npy array"),
        ("empty.npy", "", {}, "not a plain .npy array"),
    ],
)
def test_unusable_data_is_refused(base, tmp_path, name, content, options, message):
    data = written(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        load_windows(CalibrationSpec(data, **{"samples": 2, "tokens": 32, **options}), base)


@pytest.fixture
def hundred(tmp_path):
    """100 documents of 80 to 179 random tokens, two of them twice: hardly two 16-grams are equal by chance."""
    rows = [{"token_ids": np.random.default_rng(i).integers(0, 96, 80 + i).tolist()} for i in range(98)]
    file = tmp_path / "hundred.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:2]]))
    return str(file)


def grams(windows):
    return {tuple(window[at : at + 16]) for window in windows.tolist() for at in range(len(window) - 15)}


@pytest.mark.parametrize(("windows", "samples"), [("packed", 160), ("packed", 40), ("document", 40)])
def test_windows_apart_share_no_document_with_the_training_windows(base, hundred, windows, samples):
    train = CalibrationSpec(hundred, samples=samples, tokens=64, windows=windows)
    other = replace(train, seed=1)
    assert len(grams(load_windows(train, base)) & grams(load_windows(other, base))) > 100
    apart = load_windows_apart(replace(other, apart=True), train, base)
    assert grams(load_windows(train, base)) & grams(apart) == set()
    assert len(apart) == samples if samples == 40 else 20 < len(apart) < 60
    np.testing.assert_array_equal(apart, load_windows_apart(replace(other, apart=True), train, base))


@pytest.mark.parametrize(("windows", "samples"), [("packed", 199), ("document", 3000)])
def test_training_data_that_leave_no_document_are_refused(base, hundred, windows, samples):
    train = CalibrationSpec(hundred, samples=samples, tokens=64, windows=windows)
    with pytest.raises(
        ValueError, match=r"hundred\.jsonl: the training windows leave no other .* give influence_valid"
    ):
        load_windows_apart(replace(train, seed=1, apart=True), train, base)


def test_missing_file_and_missing_tokenizer_are_named(base, checkpoints, texts, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.jsonl: no such file"):
        load_windows(CalibrationSpec(str(tmp_path / "gone.jsonl")), base)
    with pytest.raises(ValueError, match="no tokenizer; copy"):
        load_windows(CalibrationSpec(str(texts[0]), 2, 16), Checkpoint.open(checkpoints["qwen3"]))
