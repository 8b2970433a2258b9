# Two commands do everything: `make search` runs the main job, `make test` the fast tests. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/default
# two workers, each of which keeps to one core
FAST := -n 2 --dist worksteal -m "not slow and not device"
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# a CPU build, where PyPI's own brings CUDA (Linux, x86-64):
# make search TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0
# what `nas` needs, and what tests and checks need besides
STAMP := $(VENV)/.installed
TOOLS := $(VENV)/.tools

.PHONY: help setup search test test-slow check bench docs clean

help:                ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) -e .
	touch $@

$(TOOLS): $(STAMP)
	$(PIP) -e '.[dev,dashboard]'
	touch $@

setup: $(TOOLS)      ## create .venv and install the pinned dependencies, developers' tools too

search: $(STAMP)     ## find networks for this machine on the embedded digits (RUN=folder)
	$(BIN)/nas run -o $(RUN)

test check: export OMP_NUM_THREADS = 1
# workers, and the processes that tests start, would else compile all sources again
test test-slow check: export PYTHONDONTWRITEBYTECODE =

test: $(TOOLS)       ## the fast tests
	$(BIN)/python -m pytest $(FAST)

test-slow: $(TOOLS)  ## the slow tests too, and more examples of each property
	$(BIN)/python -m pytest --hypothesis-profile=thorough

check: $(TOOLS)      ## lint, format, types, then the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(FAST)

bench: $(TOOLS)      ## every benchmark, results to benchmarks/results
	for b in search_speed search_quality search_vs_random profile_accuracy few_measurements tvm_vs_ort accelerator_model supernet_step quantized_for_all predictor_quality latency_transfer active_sampling warm_start simq allocation export_speed space_design joint_apq policy_latency tune tvm_tune; do \
		PYTHONPATH=. $(BIN)/python benchmarks/$$b.py --json benchmarks/results/$$b.json || exit 1; done

docs: $(TOOLS)       ## write what is generated in docs/
	PYTHONPATH=. $(BIN)/python docs/generate.py

clean:               ## remove .venv and run folders
	rm -rf $(VENV) runs
