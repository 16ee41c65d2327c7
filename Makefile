# The verbs of the project. Each installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
RUN := $(UV) run --frozen --extra all

.PHONY: demo test check bench install clean

$(if $(filter .uv/bin/uv,$(UV)),$(UV),):
	python3 -m venv .uv && .uv/bin/pip install --quiet 'uv>=0.13,<0.14'

install: $(if $(filter .uv/bin/uv,$(UV)),$(UV),) ## everything, into .venv
	$(UV) sync --frozen --extra all

demo: install ## ingest, one query, its neighbours, then the API and the page
	$(RUN) hemaseek demo

test: install ## the whole suite
	$(RUN) pytest

check: install ## style, types, layers
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

bench: install ## the figures of docs/benchmarks.md
	for script in benchmarks/*.py; do $(RUN) python "$$script"; done

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache
