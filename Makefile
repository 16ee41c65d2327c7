# The verbs of the project. Each installs what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
ifneq ($(wildcard ../shared/data),)
export HEMASEEK_DATA ?= $(abspath ../shared/data)
endif
RECIPE ?= cpu
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
EXTRA ?= app
RUN := $(UV) run --frozen --extra all --group dev

.PHONY: demo test axe test-browser check audit bench install everything chromium screenshots train-smoke train-default evaluate-served clean

$(if $(filter .uv/bin/uv,$(UV)),$(UV),):
	python3 -m venv .uv && .uv/bin/pip install --quiet 'uv>=0.13,<0.14'

install: $(if $(filter .uv/bin/uv,$(UV)),$(UV),) ## what EXTRA names beside the application, into .venv; nothing is removed
	$(UV) sync --frozen --inexact --extra app $(addprefix --extra ,$(EXTRA)) --compile-bytecode

everything: $(if $(filter .uv/bin/uv,$(UV)),$(UV),) ## all of it: PyTorch, training, tools of development
	$(UV) sync --frozen --extra all --group dev --compile-bytecode

demo: install ## ingest, one query, its neighbours, then the API and the page
	$(UV) run --frozen --no-sync hemaseek demo

test: everything ## the whole suite
	$(RUN) pytest -n 2 --dist loadfile

test-browser: everything chromium axe ## only the tests that drive the page in Chromium
	$(RUN) pytest -m browser

chromium: ## Debian's Chromium, for the browser tests
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq chromium)

axe: ## axe-core of npm (MPL-2.0, so not in here), which the browser tests run on every page
	test -f runs/axe/node_modules/axe-core/axe.min.js || npm install --silent --no-audit --no-fund --prefix runs/axe axe-core@4

screenshots: everything chromium ## the pictures in docs/, of drawn cells
	$(RUN) python benchmarks/screenshots.py

evaluate-served: everything ## docs/evaluation-served.md: ingest, serve, calibrate, evaluate PBC
	$(RUN) python benchmarks/evaluate_served.py

train-smoke: everything ## train a tiny model, kill it, resume, export, load, evaluate
	$(RUN) python -m train smoke --out runs/smoke

train-default: everything ## train the encoder that ships, in slices of nine minutes, until it is done
	$(RUN) bash -c 'while python -m train.shipped.run --recipe $(RECIPE); status=$$?; [ $$status -eq 4 ]; do :; done; exit $$status'

check: everything ## style, types, layers
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

audit: $(if $(filter .uv/bin/uv,$(UV)),$(UV),) ## known vulnerabilities of what uv.lock names, where their database can be reached
	.ci/audit

bench: everything ## every figure that docs/ gives
	for script in $(filter-out benchmarks/screenshots.py benchmarks/evaluate_served.py,$(wildcard benchmarks/*.py)); do $(RUN) python $$script; done

clean:
	rm -rf .venv .uv .mypy_cache .ruff_cache .pytest_cache
