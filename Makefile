# cofpipe: `make demo` shows it working, `make test` proves it. The README has the plain commands.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SERVE  := .venv-serve
RUNS   ?= runs
DEMO   := --shards 64 --set task.budgets=224,672,1024,1920
PURE   := tests/test_*.py tests/agent tests/manifests tests/report tests/sources
LIGHT  := not slow and not survive and not fuzz and not bench

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test fast check bench bench-train survive fuzz serve-env clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "cofpipe needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	         "Name one: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' has no venv module. Install it (Debian: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# torch and its cap are in the same pip command as everything else, so one build of it is chosen.
$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed ## 64 shards of the embedded default, a report, and what to try next
	$(BIN)/cofpipe synthesize $(DEMO) --runs-dir $(RUNS)
	@$(BIN)/cofpipe runs --runs-dir $(RUNS)
	@$(BIN)/cofpipe report latest -o $(RUNS)/report.html --runs-dir $(RUNS)
	@echo
	@echo "  rows     $(RUNS)/<run>/data/trajectories/*.parquet"
	@echo "  report   $(RUNS)/report.html  (open it in a browser)"
	@echo "  SQL      $(BIN)/cofpipe sql 'select resolution, avg(num_zooms) from trajectories group by 1 order by 1'"
	@echo "  next     $(BIN)/cofpipe synthesize ~/Pictures --shards 8 --set task.per_image=8"

test: $(VENV)/.installed-dev ## the whole suite
	$(BIN)/pytest -q -n 2 --dist loadgroup -m "$(LIGHT)"

fast: $(VENV)/.installed-dev ## the pure part of the suite, in seconds
	$(BIN)/pytest -q -n 2 -m "$(LIGHT) and not ray and not torch and not work" $(PURE)

check: $(VENV)/.installed-dev ## formatting, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev ## measurements (docs/benchmarks.md says what they mean)
	$(BIN)/pytest -q -s -p no:xdist --timeout 3600 -m bench

bench-train: $(VENV)/.installed-dev ## training steps with the vision tower batched, and without
	$(BIN)/pytest -q -s -p no:xdist --timeout 3600 -m bench tests/bench/test_train_speed.py

survive: $(VENV)/.installed-dev ## kill processes at random moments and count the rows
	$(BIN)/pytest -q -p no:xdist --timeout 3600 -m "slow or survive"

fuzz: $(VENV)/.installed-dev ## hostile inputs
	$(BIN)/pytest -q -p no:xdist --timeout 3600 -m fuzz

# torchvision stays out of $(VENV): beside a CPU-only torch it breaks transformers' own imports. One
# pip command with torch's cap, so that a second, larger build of torch is not drawn in.
serve-env: ## .venv-serve with `transformers serve`, for tests/agent/test_serve.py
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/pip install --quiet 'torch>=2.6,<2.14' 'torchvision>=0.21,<0.29' \
	  'transformers[serving]>=5.19,<5.24' jinja2 pillow
	site=$$($(SERVE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  cp tests/agent/torchvision_on_cpu.py "$$site" && \
	  echo 'import torchvision_on_cpu' > "$$site/torchvision_on_cpu.pth"

clean: ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
