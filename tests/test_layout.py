"""How the code and its tests are laid out: small folders, names that mean one thing, tests that can be found."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGES = ("orchestrator", "workers", "pruning", "eval")
SOURCES = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
MODULES = [file for file in SOURCES if file.name != "__init__.py"]
FOLDERS = sorted({file.parent for file in SOURCES})
LARGEST_FOLDER = 14
FLAT = {"eval"}
"""Its names are the field's, and a reader looks for them in one place."""

COVERED_ELSEWHERE = {
    "eval/__main__.py": "orchestrator/test_evaluate.py",
    "eval/equality/arithmetic.py": "eval/equality/test_numerals.py",
    "eval/equality/relations.py": "eval/equality/test_same_value.py",
    "eval/equality/symbolic.py": "eval/equality/test_same_value.py",
    "eval/equality/values.py": "eval/equality/test_same_value.py",
    "eval/extraction/choice_letters.py": "eval/extraction/test_choices.py",
    "eval/extraction/formulas.py": "eval/extraction/test_expressions.py",
    "eval/extraction/found.py": "eval/extraction/test_expressions.py",
    "eval/extraction/phrases.py": "eval/extraction/test_expressions.py",
    "eval/extraction/text.py": "eval/extraction/test_expressions.py",
    "eval/grader_child.py": "eval/test_grader_pool.py",
    "eval/modes/native_strict.py": "eval/modes/test_modes.py",
    "eval/modes/s1_legacy.py": "eval/modes/test_modes.py",
    "eval/modes/two_phase.py": "eval/modes/test_modes.py",
    "eval/modes/whole_response.py": "eval/modes/test_modes.py",
    "orchestrator/__main__.py": "orchestrator/test_cli.py",
    "orchestrator/cluster/backend.py": "orchestrator/cluster/test_local_backend.py",
    "orchestrator/console.py": "orchestrator/driver/test_progress.py",
    "orchestrator/driver/observer.py": "orchestrator/driver/test_driver.py",
    "orchestrator/explain/as_json.py": "orchestrator/explain/test_explain.py",
    "orchestrator/explain/as_text.py": "orchestrator/explain/test_explain.py",
    "orchestrator/explain/draw_status.py": "orchestrator/explain/test_explain.py",
    "orchestrator/explain/reasons.py": "orchestrator/explain/test_explain.py",
    "orchestrator/explain/replay_reasons.py": "orchestrator/explain/test_replay.py",
    "orchestrator/explain/replay_story.py": "orchestrator/explain/test_replay.py",
    "orchestrator/explain/replay_text.py": "orchestrator/explain/test_replay.py",
    "orchestrator/explain/replay_words.py": "orchestrator/explain/test_replay.py",
    "orchestrator/explain/selection.py": "orchestrator/explain/test_explain.py",
    "orchestrator/explain/similar.py": "orchestrator/explain/test_explain.py",
    "orchestrator/grid/calibration.py": "orchestrator/driver/test_calibration_traces.py",
    "orchestrator/grid/format.py": "orchestrator/grid/test_errors.py",
    "orchestrator/grid/source.py": "orchestrator/grid/test_errors.py",
    "orchestrator/grid/validation.py": "orchestrator/grid/test_errors.py",
    "orchestrator/plan/as_json.py": "orchestrator/plan/test_as_text.py",
    "orchestrator/plan/cost.py": "orchestrator/plan/test_as_text.py",
    "orchestrator/plan/own_traces.py": "orchestrator/driver/test_calibration_traces.py",
    "orchestrator/plan/prepare.py": "orchestrator/grid/test_errors.py",
    "orchestrator/plan/sources.py": "orchestrator/grid/test_errors.py",
    "orchestrator/results/cells.py": "orchestrator/results/test_report.py",
    "orchestrator/scheduler/events.py": "orchestrator/scheduler/test_core.py",
    "orchestrator/scheduler/fleet.py": "orchestrator/scheduler/test_core.py",
    "orchestrator/scheduler/schedule.py": "orchestrator/scheduler/test_core.py",
    "orchestrator/scheduler/state.py": "orchestrator/scheduler/test_core.py",
    "orchestrator/store/parts.py": "orchestrator/store/test_compaction.py",
    "orchestrator/sweep.py": "end_to_end/test_sweep_end_to_end.py",
    "pruning/__main__.py": "pruning/test_command_line.py",
    "pruning/allocators/allocator.py": "pruning/methods/test_method.py",
    "pruning/allocators/uniform.py": "pruning/allocators/test_formulas.py",
    "pruning/methods/dense.py": "pruning/patch/test_patch.py",
    "pruning/model/gradients.py": "pruning/allocators/test_layerif_scores.py",
    "pruning/model/memory.py": "pruning/test_command_line.py",
    "pruning/model/tensors.py": "pruning/model/test_safetensors.py",
    "pruning/patch/block_files.py": "pruning/patch/test_patch.py",
    "workers/draws/finished.py": "workers/test_eval_worker.py",
    "workers/engines/engine.py": "workers/engines/test_vllm_engine.py",
    "workers/engines/scripted_engine.py": "end_to_end/test_sweep_local.py",
    "workers/engines/swap_extension.py": "workers/engines/test_weight_proof.py",
    "workers/evaluation.py": "workers/test_eval_worker.py",
    "workers/failure.py": "orchestrator/scheduler/test_core.py",
    "workers/messages.py": "orchestrator/scheduler/test_event_log.py",
    "workers/recipes.py": "end_to_end/test_sweep_local.py",
    "workers/rows/grade_rows.py": "workers/test_grade_worker.py",
    "workers/rows/tables.py": "orchestrator/store/test_tables.py",
    "workers/store.py": "orchestrator/store/test_store_faults.py",
}
"""A product file without a test file of its name -> where, below tests/, it is covered: it is a part of what is tested
there as a whole, or only declares values."""


def path_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_orchestrator_shows_eight_files_and_nine_folders() -> None:
    inside = [path for path in (ROOT / "orchestrator").iterdir() if path.name != "__pycache__"]
    assert sum(path.is_file() for path in inside) <= 8
    assert sum(path.is_dir() for path in inside) == 9


@pytest.mark.parametrize("folder", FOLDERS, ids=path_of)
def test_folder_is_small_enough_to_know(folder: Path) -> None:
    if path_of(folder) not in FLAT:
        assert len(list(folder.glob("*.py"))) <= LARGEST_FOLDER


def test_no_class_name_stands_in_two_files() -> None:
    places = defaultdict(set)
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(path_of(file))
    assert {name: sorted(files) for name, files in places.items() if len(files) > 1} == {}


@pytest.mark.parametrize("file", MODULES, ids=path_of)
def test_file_has_tests_where_one_looks_for_them(file: Path) -> None:
    """`tests/<its folder>/test_<its name>.py`, or an entry that says where, which the other then makes superfluous."""
    own = ROOT / "tests" / file.relative_to(ROOT).with_name(f"test_{file.name}")
    named = COVERED_ELSEWHERE.get(path_of(file))
    assert own.is_file() != (named is not None), f"add {path_of(own)}, or say in COVERED_ELSEWHERE what covers it"
    assert named is None or (ROOT / "tests" / named).is_file(), f"{named} is not there"


def test_every_exception_is_of_a_file_that_exists() -> None:
    assert [name for name in COVERED_ELSEWHERE if not (ROOT / name).is_file()] == []
