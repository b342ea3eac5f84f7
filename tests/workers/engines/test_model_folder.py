"""The folder that an engine starts from: one path for one content, whole at any time, and the user's own."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from pruning.model.checkpoint import Checkpoint
from workers.engines.model_folder import model_folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "engines"


def test_folder_depends_on_config_and_tokenizer_and_not_on_where_the_model_lies(
    tiny: Path, tmp_path: Path, cache: Path
) -> None:
    config = Checkpoint.open(tiny).config
    folder = model_folder(cache, tiny, config)
    elsewhere = Path(shutil.copytree(tiny, tmp_path / "elsewhere"))
    assert model_folder(cache, elsewhere, dict(reversed(config.items()))) == folder
    assert model_folder(cache, tiny, config | {"num_hidden_layers": 1}) != folder
    tokenizer = elsewhere / "tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"padding_side": "left"}))
    assert model_folder(cache, elsewhere, config) != folder


def test_folder_needs_nothing_of_the_model_once_it_is_made(tiny: Path, tmp_path: Path, cache: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    folder = model_folder(cache, base, Checkpoint.open(base).config)
    shutil.rmtree(base)
    assert (folder / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    assert json.loads((folder / "config.json").read_text()) == Checkpoint.open(tiny).config
    assert not list(folder.glob("*.safetensors"))


def test_engines_that_make_it_at_once_share_one_folder_that_is_never_seen_in_part(
    tiny: Path, tmp_path: Path, cache: Path
) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    (base / "vocab.txt").write_bytes(bytes(32 << 20))  # takes a while to write
    config, engines = Checkpoint.open(base).config, 4
    at_once, done = Barrier(engines), Event()

    def start(_: int) -> Path:
        at_once.wait()
        return model_folder(cache, base, config)

    def watch() -> list[dict[str, int]]:
        """Sizes by name of what was seen under a final name."""
        seen: list[dict[str, int]] = []
        while not done.wait(0.001):
            for folder in cache.glob("[!.]*"):
                sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
                seen += [] if sizes in seen else [sizes]
        return seen

    with ThreadPoolExecutor(engines + 1) as pool:
        watched = pool.submit(watch)
        found = list(pool.map(start, range(engines)))
        done.set()
    (folder,) = set(found)
    assert list(cache.iterdir()) == [folder], "nothing else is left behind"
    whole = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert [sizes for sizes in watched.result() if sizes != whole] == []


@pytest.mark.parametrize("damage", ["cut", "lost", "added"])
def test_damaged_folder_is_made_again(tiny: Path, cache: Path, damage: str) -> None:
    config = Checkpoint.open(tiny).config
    folder = model_folder(cache, tiny, config)
    whole = {file.name: file.read_bytes() for file in folder.iterdir()}
    if damage == "cut":
        (folder / "config.json").write_text("{")
    elif damage == "lost":
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "vocab.json").write_text("{}")
    assert model_folder(cache, tiny, config) == folder
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == whole
    assert list(cache.iterdir()) == [folder]


def test_only_the_user_can_read_it(tiny: Path, cache: Path) -> None:
    folder = model_folder(cache, tiny, Checkpoint.open(tiny).config)
    assert folder.parent.stat().st_mode & 0o077 == 0
