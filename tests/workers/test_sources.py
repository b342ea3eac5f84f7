"""How a worker's machine finds the driver's weights, fetches them once, or says why not."""

import hashlib
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from pruning.model.checkpoint import Checkpoint
from pruning.spec import CalibrationSpec, PruneSpec
from tests.support.checkpoints import edited_checkpoint, halved
from tests.support.fake_hub import COMMIT, MODEL, fake_hub, fill_cache, find_base_on_a_machine
from workers.failure import FailureKind
from workers.messages import PatchRequest
from workers.sources import SourceFault, Sources, check_sources, data_digest, find_base

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def digest(tiny: Path) -> str:
    return Checkpoint.open(tiny).digest()


def test_folder_with_the_drivers_weights_is_taken(tiny: Path, digest: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "elsewhere"))
    assert find_base(str(copy), digest) == copy


def test_missing_folder_is_named_with_the_machine(digest: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFault, match=f"^{HOST}: {tmp_path}/model: no such folder"):
        find_base(str(tmp_path / "model"), digest)


def test_other_weights_are_refused(tiny: Path, digest: str, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(SourceFault, match=f"^{HOST}: {other} has other weights than the driver's"):
        find_base(str(other), digest)


def test_hub_model_is_fetched_once_by_all_workers_of_a_machine(tiny: Path, digest: str, tmp_path: Path) -> None:
    with fake_hub(tiny) as hub:
        found = [find_base_on_a_machine(tmp_path, digest, HF_ENDPOINT=hub.url) for _ in range(3)]
        said = {process.communicate()[0].strip() for process in found}
        again, _ = find_base_on_a_machine(tmp_path, digest, HF_ENDPOINT=hub.url).communicate()
    folder = tmp_path / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert said == {str(folder)} == {again.strip()}
    assert Checkpoint.open(folder).digest() == digest
    assert set(hub.fetched.values()) == {1}, hub.fetched
    assert "pytorch_model.bin" not in hub.fetched


def test_hub_model_in_the_cache_needs_no_hub_and_a_broken_off_download_does(
    tiny: Path, digest: str, tmp_path: Path
) -> None:
    snapshot = fill_cache(tmp_path / "hub", tiny)
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    assert find_base_on_a_machine(tmp_path, digest, **nowhere).communicate()[0].strip() == str(snapshot)
    (snapshot / "model.safetensors").unlink()
    fault, _ = find_base_on_a_machine(tmp_path, digest, **nowhere).communicate()
    assert f"fault: {HOST}: model {MODEL}: " in fault
    assert "http://127.0.0.1:1 cannot be reached" in fault
    assert f"`hf download org/tiny --revision {COMMIT}`" in fault
    fault, _ = find_base_on_a_machine(tmp_path, digest, HF_HUB_OFFLINE="1").communicate()
    assert "HF_HUB_OFFLINE is set" in fault


def test_patch_is_made_of_the_drivers_weights_tokenizer_and_data_or_not_at_all(
    tiny: Path, digest: str, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "1+1"}\n')
    calibration = CalibrationSpec(str(data))
    payload = {
        "base": digest,
        "tokenizer": Checkpoint.open(model).tokenizer_digest(),
        "spec": {"calibration": {"data": data_digest(calibration)}},
    }
    request = PatchRequest("patch", PruneSpec("wanda", 0.5, calibration=calibration), payload)
    assert check_sources(str(model), request).base == model
    with pytest.raises(SourceFault, match="has other weights"):
        check_sources(str(model), replace(request, payload=payload | {"base": "0" * 64}))
    with pytest.raises(SourceFault, match=f"^{HOST}: {model} has another tokenizer"):
        check_sources(str(model), replace(request, payload=payload | {"tokenizer": "0" * 64}))
    data.write_text('{"text": "1+2"}\n')
    with pytest.raises(SourceFault, match=f"{data} is not the driver's"):
        check_sources(str(model), request)
    data.unlink()
    with pytest.raises(SourceFault, match=f"{data}: no such file"):
        check_sources(str(model), request)


def test_checkpoint_of_a_patch_is_the_drivers_and_found_where_this_machine_has_it(
    tiny: Path, digest: str, tmp_path: Path
) -> None:
    """It needs no tokenizer. What is wrong with it is wrong with the patch, and not with the model."""
    theirs = edited_checkpoint(tiny, tmp_path / "theirs", halved)
    for file in (*theirs.glob("tokenizer*"), theirs / "chat_template.jinja"):
        file.unlink()
    payload = {"base": digest, "spec": {"path": Checkpoint.open(theirs).digest()}}
    request = PatchRequest("patch", PruneSpec("checkpoint", path=str(theirs), label="mine"), payload)
    assert check_sources(str(tiny), request) == Sources(tiny, request.spec)
    with pytest.raises(SourceFault, match=f"^{HOST}: {theirs} has other weights") as fault:
        check_sources(str(tiny), replace(request, payload=payload | {"spec": {"path": "0" * 64}}))
    assert fault.value.kind is FailureKind.DATA
    shutil.rmtree(theirs)
    with pytest.raises(SourceFault, match=f"^{HOST}: {theirs}: no such folder") as fault:
        check_sources(str(tiny), request)
    assert fault.value.kind is FailureKind.DATA


def test_checkpoint_on_the_hub_is_resolved_by_each_machine(
    tiny: Path, digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = edited_checkpoint(tiny, tmp_path / "theirs", halved)
    snapshot = fill_cache(tmp_path / "hub", theirs)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    spec = PruneSpec("checkpoint", path=MODEL, label="mine")
    request = PatchRequest("patch", spec, {"base": digest, "spec": {"path": Checkpoint.open(theirs).digest()}})
    assert check_sources(str(tiny), request) == Sources(tiny, replace(spec, path=str(snapshot)))


def test_the_same_bytes_as_text_and_as_rows_are_other_data_and_a_copy_is_the_same(tmp_path: Path) -> None:
    content = '{"text": "1+1=2"}\n'
    digests = {}
    for name in ("rows.jsonl", "plain.txt", "copy.txt"):
        (tmp_path / name).write_text(content)
        digests[name] = data_digest(CalibrationSpec(str(tmp_path / name)))
    assert digests["plain.txt"] == digests["copy.txt"] != digests["rows.jsonl"]
    assert digests["rows.jsonl"] == hashlib.sha256(content.encode()).hexdigest(), "as in every store so far"
    with pytest.raises(ValueError, match=r"calibration file none\.txt: no such file"):
        data_digest(CalibrationSpec("none.txt"))
