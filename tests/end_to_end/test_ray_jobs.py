"""Running on a cluster as a person does it: `ray start --head`, `ray job submit`, and whether status and log are true.

The head is never stopped with `ray stop`, which ends every Ray of the machine: its process group is ended instead.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

import pytest
import yaml
from ray._private.runtime_env import packaging
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray.autoscaler._private.util import prepare_config, validate_config

from orchestrator.store.store import load_draws
from tests.support import ROOT

GRID = """
name: job
store: {store}
models: [examples/tiny/model]
variants: [{{method: dense}}]
token_limits: [16, 32]
benchmarks: [examples/tiny/chain-mixed.jsonl]
sampling: {{temperature: 0.0}}
budget: {{mode: native-strict, answer_tokens: 16}}
runtime: {{engines: 1, slots: 2}}
"""
PROBLEMS = 12
MIB = 1 << 20


@dataclass(frozen=True)
class Head:
    """A running head node."""

    dashboard: str
    home: Path
    """The home folder of the head's processes, and so of its jobs."""
    environment: dict[str, str]


@dataclass(frozen=True)
class Job:
    """A job that has ended."""

    status: int
    """Exit status of `ray job submit`."""
    out: str
    """What `ray job submit` printed: the log as it grew, and how it ended."""
    state: str
    message: str
    log: str


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node that a user started: on ports of its own, without a dashboard for the world."""
    dashboard, gcs, client = free_ports(3)
    # Ray keeps sockets in here, whose paths may have 107 characters: pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="ps-", ignore_cleanup_errors=True) as short:
        home = Path(short, "home")
        home.mkdir()
        search = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": os.pathsep.join(search),
            "PYTHONPATH": str(ROOT),
        }
        process = subprocess.Popen(
            [
                *("ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0"),
                *(f"--port={gcs}", f"--ray-client-server-port={client}", f"--temp-dir={short}/ray"),
                *("--min-worker-port=0", "--max-worker-port=0"),  # any free ones: the default range may hold ours
            ],
            env={**environment, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None
            heard = ""
            for line in process.stdout:
                heard += line
                if "will now block" in line:
                    break
            assert "Ray runtime started" in heard, heard
            yield Head(f"http://127.0.0.1:{dashboard}", home, environment)
        finally:
            # The workers of a dead head end by themselves; an orderly end takes Ray half a minute.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def submit(head: Head, folder: Path, name: str, grid: str) -> Job:
    """Submit a sweep from `folder` as the README says, wait for it, and ask Ray for its state and log."""
    (folder / "grid.yaml").write_text(grid)
    cache = os.environ.get("VLLM_CACHE_ROOT", str(Path.home() / ".cache" / "vllm"))
    # What a user passes to a job. Both are also among the variables that a sweep hands to its workers by itself.
    passed = json.dumps({"env_vars": {"HF_HUB_OFFLINE": "1", "VLLM_CACHE_ROOT": cache}})
    submitted = subprocess.run(
        [
            *("ray", "job", "submit", f"--submission-id={name}", "--working-dir=.", f"--runtime-env-json={passed}"),
            *("--", "python", "-m", "orchestrator.sweep", "grid.yaml"),
        ],
        cwd=folder,
        env={**head.environment, "RAY_API_SERVER_ADDRESS": head.dashboard},
        capture_output=True,
        text=True,
        timeout=200,
    )
    job = read_json(f"{head.dashboard}/api/jobs/{name}")
    log = read_json(f"{head.dashboard}/api/jobs/{name}/logs")["logs"]
    return Job(submitted.returncode, submitted.stdout, job["status"], job["message"], log)


def read_json(url: str) -> dict:
    with urlopen(url, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small working folder: the tiny model and a few problems."""
    folder = tmp_path_factory.mktemp("job")
    tiny = folder / "examples" / "tiny"
    shutil.copytree(ROOT / "examples" / "tiny" / "model", tiny / "model")
    problems = (ROOT / "examples" / "tiny" / "chain-mixed.jsonl").read_text().splitlines(keepends=True)
    (tiny / "chain-mixed.jsonl").write_text("".join(problems[:PROBLEMS]))
    return folder


@pytest.fixture(scope="module")
def swept(head: Head, folder: Path) -> Job:
    """A job that ran a sweep into a store with a relative path."""
    return submit(head, folder, "swept", GRID.format(store="./store"))


def table(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith(("│", "┃"))]


def test_job_succeeds_and_its_log_ends_with_the_table(swept: Job) -> None:
    assert swept.status == 0, swept.log
    assert swept.state == "SUCCEEDED"
    assert table(swept.out) == table(swept.log)
    (header, row) = table(swept.log)
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == ["benchmark", "variant", "16", "32"]
    assert [cell.strip() for cell in row.strip("│").split("│")][:2] == ["chain-mixed", "dense"]
    assert row.count("[") == 2, "both limits have a score"


def test_relative_store_of_a_job_is_in_the_home_folder_and_the_log_says_so(
    head: Head, folder: Path, swept: Job
) -> None:
    store = head.home / "prunesweep" / "store"
    assert f"a job's folder is a temporary copy: using {store}" in swept.log
    draws = load_draws(str(store))
    assert len(set(draws["prompt_id"].to_pylist())) == draws.num_rows == PROBLEMS
    assert not (folder / "store").exists()


def test_next_job_finds_the_draws_at_their_absolute_path_although_its_folder_is_another_copy(
    head: Head, folder: Path, swept: Job
) -> None:
    store = head.home / "prunesweep" / "store"
    (folder / "notes.txt").write_text("changed, so Ray makes another package and another folder of it")
    again = submit(head, folder, "again", GRID.format(store=store))
    assert again.status == 0, again.log
    assert again.state == "SUCCEEDED"
    assert f"nothing is owed; all {PROBLEMS} draws of 2 cells are in {store}" in again.log
    assert table(again.log) == table(swept.log)
    assert "starting Ray" not in again.log


def test_job_with_a_bad_grid_fails_with_one_line(head: Head, folder: Path) -> None:
    bad = submit(head, folder, "bad", GRID.format(store="./store").replace("token_limits", "token_limit"))
    assert bad.status == 1, "Ray's own: the script's status 2 stands in the job's message"
    assert bad.state == "FAILED"
    assert "exit code 2" in bad.message
    complaints = [line for line in bad.log.splitlines() if "unknown key" in line]
    assert len(complaints) == 1, bad.log
    assert re.match(r"error: grid.yaml:\d+: token_limit: unknown key\. Did you mean 'token_limits'\?", complaints[0])
    assert "Traceback" not in bad.log


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    """The package that Ray would make of this checkout for a job."""
    made = tmp_path / "package.zip"

    def keep(working_dir: str, excludes: list[str], is_file: bool = False) -> None:
        packaging.create_package(working_dir, made, include_gitignore=True, excludes=excludes)

    upload_working_dir_if_needed({"working_dir": str(ROOT)}, include_gitignore=True, upload_fn=keep)
    return made


def test_upload_of_this_checkout_is_small_and_can_run_the_example(upload: Path) -> None:
    assert upload.stat().st_size < 10 * MIB
    with ZipFile(upload) as package:
        names = set(package.namelist())
        content = sum(entry.file_size for entry in package.infolist())
    assert content < 10 * MIB
    assert {name.split("/")[0] for name in names} >= {"orchestrator", "workers", "pruning", "eval", "examples"}
    needed = {"orchestrator/sweep.py", "examples/tiny/grid.yaml", "examples/tiny/chain-mixed.jsonl"}
    needed |= {f"examples/tiny/model/{path.name}" for path in (ROOT / "examples/tiny/model").iterdir()}
    assert names >= needed


def test_upload_leaves_out_what_no_job_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a copy with our ignore file alone: large things lie where sweeps, tools and tests put them."""
    monkeypatch.setenv("RAY_OVERRIDE_RUNTIME_ENV_DEFAULT_EXCLUDES", "")
    checkout = tmp_path / "checkout"
    for name in ("orchestrator/sweep.py", "examples/tiny/build/kept.py", "cluster.yaml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("")
    left = (".venv", ".git", "store/draws", "mlruns/0", "build", "tests", "benchmarks", ".mypy_cache", "x/__pycache__")
    for name in left:
        (checkout / name).mkdir(parents=True)
        (checkout / name / "large").write_text("")
    (checkout / "mlflow.db").write_text("")
    shutil.copy(ROOT / ".rayignore", checkout)
    made = tmp_path / "package.zip"
    packaging.create_package(str(checkout), made, include_gitignore=True)
    with ZipFile(made) as package:
        files = {name for name in package.namelist() if not name.endswith("/")}
    assert files == {"orchestrator/sweep.py", "examples/tiny/build/kept.py", "cluster.yaml", ".rayignore"}


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_cluster_file_passes_the_checks_that_ray_up_makes(cluster: dict) -> None:
    validate_config(prepare_config(cluster))


def test_checks_of_ray_up_refuse_a_misspelt_cluster_file(cluster: dict) -> None:
    cluster["setup_comands"] = cluster.pop("setup_commands")
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config(cluster))
