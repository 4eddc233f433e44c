# The whole developer interface. Needs Python 3.11 and make, nothing else.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
MANIFEST ?= manifests/digits.json
# The native tester's library, model and packed file: make native-run PADDLE_ROOT=... MODEL=...
PADDLE_ROOT ?=
MODEL ?= runs/digits/int8
DATA ?= digits-test.bin
# Set to run some of the tests: make test TESTS=tests/unit. The same for make test-all.
TESTS ?= tests
# Processes that run them. Each takes whole files, in the order of tests/conftest.py.
WORKERS ?= 2
# Builds and runs the image: docker where its daemon answers, else podman, or a command of yours.
CONTAINER ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo podman)
IMAGE ?= job:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BASE ?= docker.io/library/python:3.11-slim-bookworm
COMPILE := uv pip compile pyproject.toml --generate-hashes --no-header --quiet \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28

PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

help: ## Say what can be made.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

run: $(VENV)/installed ## Set up, then run $(MANIFEST).
	$(BIN)/job run $(MANIFEST)

test: $(VENV)/installed-tests ## Set up, then run the tests, in at most 8 minutes.
	$(PYTEST) $(TESTS)

test-all: $(VENV)/installed-tests ## Also the slow ones, with 10 times the generated cases.
	$(PYTEST) --full $(TESTS)

check: $(VENV)/installed-tests ## Lint, format, types and layers.
	! git grep -nE '^(<<<<<<<|>>>>>>>) '
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/installed ## Is INT8 as fast and as right as recorded? RECORD=1 records anew.
	$(BIN)/job run tests/bench/manifest.json --output runs/bench --from benchmark
	$(BIN)/python tests/bench/compare.py runs/bench $(if $(RECORD),--record)

doctor: $(VENV)/installed ## Say whether this machine can do the job.
	$(BIN)/job doctor

lock: ## Resolve the dependencies anew (needs uv).
	$(COMPILE) -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock -o tests/requirements.lock \
	  $$(sed -n 's/^\([a-z0-9_.-]*\)==.*/--no-emit-package \1/p' requirements.lock)
	$(COMPILE) --extra openvino --extra onnxruntime --extra compare -c requirements.lock -o job/engine/engines.lock \
	  $$(sed -n 's/^\([a-z0-9_.-]*\)==.*/--no-emit-package \1/p' requirements.lock)

engines: $(VENV)/installed-engines ## Set up, with OpenVINO, ONNX Runtime and NNCF.

native: ## Build the native tester on the inference library in $(PADDLE_ROOT).
	cmake -S job/native -B build/native -DPADDLE_ROOT=$(abspath $(PADDLE_ROOT))
	cmake --build build/native

native-run: native ## Run it on $(MODEL) and $(DATA), with the options in $(ARGS).
	build/native/tester --infer_model $(MODEL) --infer_data $(DATA) $(ARGS)

image: ## Build the image $(IMAGE) with docker or podman.
	$(CONTAINER) build --tag $(IMAGE) \
	  --build-arg BASE=$(BASE) \
	  --build-arg VERSION=$(lastword $(subst :, ,$(IMAGE))) \
	  --build-arg REVISION=$$(git rev-parse HEAD) \
	  --build-arg CREATED=$$(date -u -d @$$(git log -1 --format=%ct) +%Y-%m-%dT%H:%M:%SZ) .

image-test: image $(VENV)/installed-tests ## Build it and prove it: runs, signals, limits, users.
	CONTAINER="$(CONTAINER)" JOB_IMAGE=$(IMAGE) $(BIN)/python -m pytest tests/container

image-size: ## Say what takes the image's space, by layer and by package.
	@$(CONTAINER) history --format '{{.Size}}\t{{.CreatedBy}}' $(IMAGE) | grep -v '^0 \?B' | cut -c1-100
	@$(CONTAINER) run --rm --entrypoint sh $(IMAGE) -c \
	  'cd /opt/job/lib/python3.11/site-packages && du -sm -- * | sort -rn | head -25'

sbom: $(VENV)/installed-tests ## Write sbom.cdx.json: every locked package with its version and hashes.
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml \
	  --output-reproducible --output-file sbom.cdx.json

clean: ## Remove the virtual environment and caches; runs stay.
	rm -rf $(VENV) build/native *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# --no-deps: the lock file is complete, and paddleslim's own pins are wrong (see pyproject.toml).
$(VENV)/installed: requirements.lock pyproject.toml | $(BIN)/python
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
