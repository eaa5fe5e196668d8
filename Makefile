# rnr: everything starts with `make demo` (the main job) or `make test`; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := $(shell grep '^torch==' constraints.txt)
# Two test processes on two cores: more threads in each would only get in each other's way.
TEST := OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-all faults fuzz parity test-8bit lint fit baselines ablations results notebooks bench clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## a virtual environment with rnr and all it needs

$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "rnr needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,scale]' --config-settings editable_mode=compat
	touch $@

demo: $(READY)  ## degrade, diagnose and restore a photo that ships along
	$(BIN)/rnr demo --output demo

test: $(READY)  ## the default tests
	$(TEST)

test-slow: $(READY)  ## the tests that take longer
	$(TEST) -m slow

test-all: $(READY)  ## every suite at its full length: test, test-slow, faults and parity (hours)
	FUZZ=100000 $(TEST) -m "not gpu and not weights and not eightbit"

faults: $(READY)  ## kills, full disks, broken files, fuzzed input (long)
	FUZZ=100000 $(TEST) -m "slow or not slow" tests/faults tests/stages/test_resume.py tests/scale/test_processes.py

fuzz: $(READY)  ## inputs that look for new ways through the code; installs atheris
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/guided.py 100000

parity: $(READY)  ## every stage by two processes under DDP, FSDP2 and ZeRO: the same steps (long)
	$(TEST) -m "slow or not slow" tests/scale

test-8bit: $(READY)  ## the tests of 8-bit text encoders; installs bitsandbytes
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[eightbit]'
	$(TEST) -m eightbit

lint: $(READY)  ## ruff and import-linter (also part of the tests)
	$(BIN)/ruff check .
	$(BIN)/lint-imports

fit: $(READY)  ## the three stages, one after the other, as their configs stand
	$(BIN)/rnr fit --config lightning_configs/reasoner_sft.yaml
	$(BIN)/rnr fit --config lightning_configs/restorer_sft.yaml
	$(BIN)/rnr fit --config lightning_configs/grpo.yaml

baselines: $(READY)  ## the rows of Table 2, on two photos (ARGS="--data.sources.test=[DIR] --data.eval_draws=3" for more)
	$(BIN)/rnr baselines $(ARGS)

ablations: $(READY)  ## the rows of Table 3, at a quick setting (ARGS="--sft-steps 4000 --jobs 2 ..." for more)
	$(BIN)/rnr ablations $(ARGS)

results: $(READY)  ## docs/results.md from the commands in it: make results DATA=FOLDER (ARGS=--again: all anew)
	$(BIN)/rnr results --label "D=$(DATA)" $(ARGS)

notebooks: $(READY)  ## run the notebooks in place
	OMP_NUM_THREADS=1 HF_HUB_DISABLE_PROGRESS_BARS=1 PYTHONWARNINGS=ignore $(BIN)/jupyter-execute --inplace notebooks/*.ipynb

bench: $(READY)  ## speed beside other ways to do it, in one run
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.degradation
	$(BIN)/python -m benchmarks.reasoner
	$(BIN)/python -m benchmarks.restorer
	$(BIN)/python -m benchmarks.grpo
	$(BIN)/python -m benchmarks.full_scale

clean:  ## remove what runs left behind, but not the environment
	rm -rf demo runs out
