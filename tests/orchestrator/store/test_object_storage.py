"""The store on object storage: a real S3 server on this machine that throttles, breaks, cuts connections and goes away.

What passes is survived; what does not is told with its kind; and at no moment is half a file there.
"""

import gc
import hashlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.store.compaction import compact
from orchestrator.store.lease import SweepHeld, hold_lease
from orchestrator.store.store import Store, StoreError, StoreUnavailable, Trouble, load_draws
from tests.orchestrator.store.test_store_faults import full_disk
from tests.support.builders import make_grade, make_row
from tests.support.object_storage import Bucket, Fault, s3_server

PASSING = [Fault.THROTTLED, Fault.BROKEN, Fault.CUT, Fault.CUT_ANSWER]


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture
def bucket(server: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    server.injected = 0
    server.served.clear()
    yield server
    server.inject()


@pytest.fixture
def store(bucket: Bucket, request: pytest.FixtureRequest) -> Store:
    return Store.open(f"s3://bucket/{abs(hash(request.node.name))}/store")


def make_patch(folder: Path, size: int = 10) -> Path:
    folder.mkdir()
    (folder / "layer-00000.safetensors").write_bytes(os.urandom(size))
    (folder / "manifest.json").write_text("{}")
    return folder


def test_store_does_on_object_storage_what_it_does_on_a_disk(store: Store, tmp_path: Path) -> None:
    store.check_writable()
    assert store.contexts() == frozenset()
    rows = [make_row(prompt=f"p{number}", cuts=(2, 4)) for number in range(3)]
    for row in rows:
        store.commit_draws([row])
    store.commit_draws([replace(rows[0], context_id="d")])
    store.commit_grades([make_grade()])
    store.put_payload("id", {"a": 1})
    made = make_patch(tmp_path / "made")
    store.publish_patch(made, "patch")

    other = pickle.loads(pickle.dumps(store))
    before = other.read("draws", "c")
    assert sorted(before["prompt_id"].to_pylist()) == ["p0", "p1", "p2"]
    assert other.contexts() == {"c", "d"}
    assert other.payload("id") == {"a": 1}
    assert other.payload("none") is None
    assert other.patch_ids() == {"patch"}
    fetched = other.fetch_patch("patch", tmp_path / "cache")
    assert {f.name: f.read_bytes() for f in fetched.iterdir()} == {f.name: f.read_bytes() for f in made.iterdir()}
    assert compact(other, "draws", "c") == 2
    assert store.read("draws", "c").equals(before)
    assert load_draws(store, ["seed", "answers.cut"]).num_rows == 4
    assert store.reported == set()


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name)
def test_fault_that_passes_is_survived_in_every_operation(
    store: Store, bucket: Bucket, tmp_path: Path, fault: Fault
) -> None:
    bucket.inject(fault, methods="PUT")
    store.commit_draws([make_row(prompt="p0")])
    store.commit_draws([make_row(prompt="p1")])
    bucket.inject(fault)
    store.publish_patch(make_patch(tmp_path / "made"), "patch")
    bucket.inject(fault, methods="GET")
    before = store.read("draws", "c")  # the listing fails
    bucket.inject(None, fault, methods="GET")
    assert store.read("draws", "c").equals(before)  # a file fails
    bucket.inject(None, fault, methods="GET")
    assert (store.fetch_patch("patch", tmp_path / "cache") / "manifest.json").read_text() == "{}"
    bucket.inject(fault, methods="PUT DELETE")
    assert compact(store, "draws", "c") == 1
    assert store.read("draws", "c").equals(before)
    assert store.stored_draws("c") == {("c", "p0", 0), ("c", "p1", 0)}
    assert store.reported == set()
    assert bucket.injected >= 6


def test_storm_of_throttling_is_waited_out(store: Store, bucket: Bucket) -> None:
    bucket.inject(*[Fault.THROTTLED] * 3, methods="PUT")
    store.commit_draws([make_row(prompt="p0")])
    assert bucket.injected == 3
    assert store.stored_draws("c") == {("c", "p0", 0)}


def test_storage_that_is_gone_is_told_after_so_many_attempts_and_nothing_is_lost(
    store: Store, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    store = Store.open(store.uri)
    store.commit_draws([make_row(prompt="p0")])
    store.commit_draws([make_row(prompt="p1")])
    before = store.read("draws", "c")
    made = make_patch(tmp_path / "made")
    for operation in (
        store.check_writable,
        lambda: store.commit_draws([make_row(prompt="p2")]),
        lambda: store.read("draws", "c"),
        store.contexts,
        lambda: store.payload("id"),
        lambda: store.publish_patch(made, "patch"),
        lambda: compact(store, "draws", "c"),
    ):
        bucket.inject(forever=Fault.CUT)
        bucket.injected = 0
        with pytest.raises(StoreUnavailable, match="run the same command again when it can be reached") as caught:
            operation()
        assert caught.value.trouble is Trouble.UNREACHABLE
        assert store.uri in str(caught.value)
        assert bucket.injected <= 2 * 2  # a look and a write, at the most
        bucket.inject()
        assert store.read("draws", "c").equals(before)
    assert store.patch_ids() == frozenset()


@pytest.mark.parametrize("good_parts", [0, 1, 2])
def test_upload_in_parts_that_breaks_off_leaves_no_file_at_all(
    store: Store, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_parts: int
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = Store.open(store.uri)
    made = make_patch(tmp_path / "made", size=25_000_000)
    bucket.inject(*[None] * good_parts, methods="PUT", forever=Fault.BROKEN)
    with pytest.raises(StoreUnavailable):
        store.publish_patch(made, "patch")
    bucket.inject()
    gc.collect()  # an upload that is dropped is closed, and must not be completed by that
    assert sum("partNumber" in line for line in bucket.served) == good_parts
    assert store.files.listing("patches") == []
    store.publish_patch(made, "patch")
    fetched = store.fetch_patch("patch", tmp_path / "cache")
    assert (fetched / "layer-00000.safetensors").read_bytes() == (made / "layer-00000.safetensors").read_bytes()


def test_connection_cut_in_an_upload_in_parts_is_survived(store: Store, bucket: Bucket, tmp_path: Path) -> None:
    made = make_patch(tmp_path / "made", size=25_000_000)
    bucket.inject(None, Fault.CUT, Fault.CUT, methods="PUT")
    store.publish_patch(made, "patch")
    assert bucket.injected == 2
    fetched = store.fetch_patch("patch", tmp_path / "cache")
    assert (fetched / "layer-00000.safetensors").read_bytes() == (made / "layer-00000.safetensors").read_bytes()


def test_denied_or_missing_bucket_is_refused_at_once(store: Store, bucket: Bucket) -> None:
    bucket.inject(Fault.DENIED, methods="PUT")
    with pytest.raises(StoreUnavailable, match=r"ACCESS_DENIED.*give a folder that can be written") as caught:
        store.check_writable()
    assert caught.value.trouble is Trouble.REFUSED
    assert bucket.injected == 1
    with pytest.raises(StoreUnavailable, match="NO_SUCH_BUCKET") as caught:
        Store.open("s3://nobodys/store").check_writable()
    assert caught.value.trouble is Trouble.REFUSED


def test_address_with_credentials_is_refused_without_printing_them() -> None:
    with pytest.raises(StoreError, match="AWS_SECRET_ACCESS_KEY") as caught:
        Store.open("s3://key:hunter2@bucket/store")
    assert "hunter2" not in str(caught.value)


def test_address_with_an_unknown_setting_names_those_there_are() -> None:
    with pytest.raises(StoreError, match=r"does not know zone; .*region=.*endpoint_override="):
        Store.open("s3://bucket/store?zone=1")


def test_traces_to_calibrate_on_are_kept_once_and_fetched(store: Store, tmp_path: Path) -> None:
    assert store.traces_digest("name") is None
    store.publish_traces("name", b"first")
    store.publish_traces("name", b"second")
    file = store.fetch_traces("name", tmp_path / "cache")
    assert file.read_bytes() == b"first"
    assert store.traces_digest("name") == hashlib.sha256(b"first").hexdigest()


def test_lease_of_a_sweep_is_held_on_object_storage(store: Store) -> None:
    with hold_lease(store, "sweep", print, print), pytest.raises(SweepHeld, match=f"process {os.getpid()}"):
        hold_lease(store, "sweep", print, print).__enter__()
    assert store.files.listing("drivers") == []


def test_cache_holds_the_last_patch_alone(store: Store, tmp_path: Path) -> None:
    for name in ("first", "second"):
        store.publish_patch(make_patch(tmp_path / name), name)
        fetched = store.fetch_patch(name, tmp_path / "cache")
        assert (fetched / "manifest.json").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["second"]


def test_cache_that_takes_no_patch_is_named_with_a_remedy_and_keeps_nothing_half_done(
    store: Store, tmp_path: Path
) -> None:
    store.publish_patch(make_patch(tmp_path / "made", size=300_000), "patch")
    with full_disk(tmp_path / "disk"):
        cache = tmp_path / "disk" / "cache"
        with pytest.raises(
            StoreUnavailable, match=r"patch patch cannot be copied here \(full\).*make room there"
        ) as caught:
            store.fetch_patch("patch", cache)
        assert caught.value.trouble is Trouble.FULL
        assert str(cache) in str(caught.value)
        assert list(cache.iterdir()) == []
