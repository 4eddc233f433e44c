# All developer commands. Requires Python 3.11 and make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
MANIFEST ?= manifests/digits.json
# Folder of Paddle's C++ archive for the native tester. Empty: the library in the virtual environment.
PADDLE_ROOT ?=
# Model and packed file of the native tester: make native-run MODEL=...
MODEL ?= runs/digits/int8
DATA ?= digits-test.bin
# Tests to run, for make test and make test-all: make test TESTS=tests/unit
TESTS ?= tests
# Number of test processes. Each runs whole test files, in the order of tests/conftest.py. Three
# processes use 2 cores, because tests wait for timeouts, locks and child processes a third of the time.
WORKERS ?= 3
# Command that builds and runs the image: docker if its daemon responds, otherwise podman.
CONTAINER ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo podman)
IMAGE ?= job:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BASE ?= docker.io/library/python:3.11-slim-bookworm
COMPILE := uv pip compile pyproject.toml --generate-hashes --no-header --quiet \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28

# If PYTHONDONTWRITEBYTECODE is set, each process compiles all modules again, which takes a second of CPU
# time.
unexport PYTHONDONTWRITEBYTECODE

# The test processes share the cores, so one thread of the math libraries is enough for each, and a waiting
# thread must not spin.
PYTEST := OMP_NUM_THREADS=1 KMP_BLOCKTIME=0 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

run: $(VENV)/installed ## Set up the environment, then run $(MANIFEST).
	$(BIN)/job run $(MANIFEST)

test: $(VENV)/installed-tests ## Set up the environment, then run the tests (at most 8 minutes).
	$(PYTEST) $(TESTS)

test-all: $(VENV)/installed-tests ## Run all tests, also the slow tests, with 10 times the generated cases.
	$(PYTEST) --full --durations=25 $(TESTS)

check: $(VENV)/installed-tests ## Check lint, format, types and import layers.
	! git grep -nE '^(<<<<<<<|>>>>>>>) '
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/installed ## Compare INT8 speed and accuracy with the recorded figures. RECORD=1 overwrites them.
	$(BIN)/job run tests/bench/manifest.json --output runs/bench --from benchmark
	$(BIN)/python tests/bench/compare.py runs/bench $(if $(RECORD),--record,\
		|| $(BIN)/python tests/bench/compare.py runs/bench --again)

doctor: $(VENV)/installed ## Check whether this machine can run the job.
	$(BIN)/job doctor

lock: ## Resolve the dependencies and write the lock files (needs uv).
	$(COMPILE) -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock -o tests/requirements.lock \
	  $$(sed -n 's/^\([a-z0-9_.-]*\)==.*/--no-emit-package \1/p' requirements.lock)
	$(COMPILE) --extra openvino --extra onnxruntime --extra compare -c requirements.lock -o job/engine/engines.lock \
	  $$(sed -n 's/^\([a-z0-9_.-]*\)==.*/--no-emit-package \1/p' requirements.lock)

engines: $(VENV)/installed-engines ## Install OpenVINO, ONNX Runtime and NNCF.

native: $(VENV)/installed ## Build the native tester with the library in the virtual environment.
	cmake -S job/native -B build/native -DPADDLE_ROOT=$(abspath $(PADDLE_ROOT)) \
	  -DPython3_EXECUTABLE=$(abspath $(BIN))/python
	cmake --build build/native

native-run: native ## Run the native tester on $(MODEL) and $(DATA), with options $(ARGS).
	build/native/tester --infer_model "$(MODEL)" --infer_data "$(DATA)" $(ARGS)

image: ## Build the image $(IMAGE) with docker or podman.
	$(CONTAINER) build --tag $(IMAGE) \
	  --build-arg BASE=$(BASE) \
	  --build-arg VERSION=$(lastword $(subst :, ,$(IMAGE))) \
	  --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg CREATED=$$(date -u -d @$$(git log -1 --format=%ct) +%Y-%m-%dT%H:%M:%SZ) .

image-test: image $(VENV)/installed-tests ## Build the image, then test it: runs, signals, limits and users.
	CONTAINER="$(CONTAINER)" JOB_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/container

image-size: ## List the image's size by layer and by package.
	@$(CONTAINER) history --format '{{.Size}}\t{{.CreatedBy}}' $(IMAGE) | grep -v '^0 \?B' | cut -c1-100
	@$(CONTAINER) run --rm --entrypoint sh $(IMAGE) -c \
	  'cd /opt/job/lib/python3.11/site-packages && du -sm -- * | sort -rn | head -25'

sbom: $(VENV)/installed-tests ## Write sbom.cdx.json: each locked package with version and hashes.
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
	  --output-reproducible --output-file sbom.cdx.json

clean: ## Delete the virtual environment and caches, but not the runs.
	rm -rf $(VENV) build/native *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# --no-deps, because the lock file is complete and paddleslim's pins are wrong (see pyproject.toml).
$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing the locked packages in $(VENV): 1.2 GB on disk. This can take several minutes."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/installed-tests: tests/requirements.lock $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tests/requirements.lock
	touch $@

$(VENV)/installed-engines: job/engine/engines.lock $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r job/engine/engines.lock
	touch $@

.PHONY: help run test test-all check bench doctor lock engines native native-run image image-test image-size sbom clean
