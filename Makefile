# Everything a person or the CI does here; `make` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The environment is current when a stamp of exactly these requirements, for this folder, lies in it.
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
KEY := $(shell { cat requirements/dev.txt; echo "$(CURDIR)"; } | cksum | tr ' ' '-')
STAMP := .venv/.ready-$(KEY)
N ?= 500

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## install everything into .venv (nothing to do when it is current)

.PHONY: demo
demo: setup ## the whole story on this machine: hub, devices, rollout (KEEP=1 leaves it running)
	@"$(BIN)/rimward" demo $(if $(KEEP),--keep)

.PHONY: test
test: setup ## every test that can run here
	"$(BIN)/python" -m pytest

.PHONY: check
check: setup ## format, lint, types, import rules, documentation; under a minute
	"$(BIN)/ruff" format --check
	"$(BIN)/ruff" check
	"$(BIN)/mypy"
	PYTHONPATH=. "$(BIN)/lint-imports"
	"$(BIN)/python" -m pytest -q tests/test_docs.py

.PHONY: fmt
fmt: setup ## format and mend what can be mended
	"$(BIN)/ruff" format
	"$(BIN)/ruff" check --fix

.PHONY: golden
golden: setup ## write the golden files anew; review the difference like code
	RIMWARD_UPDATE_GOLDEN=1 "$(BIN)/python" -m pytest -q tests/test_golden.py \
		tests/unit/agent/test_agent_cli.py tests/unit/hub/api/test_api.py tests/unit/hub/cli/test_hub_cli.py
	"$(BIN)/python" docs/generate.py

.PHONY: docs
docs: setup ## write the generated parts of docs/
	"$(BIN)/python" docs/generate.py

.PHONY: lock
lock: setup ## resolve every dependency anew into requirements/dev.txt, with hashes
	"$(BIN)/uv" pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --upgrade \
		$(foreach extra,agent docker hub inference demo dev,--extra $(extra)) \
		pyproject.toml -o requirements/dev.txt

.PHONY: chaos
chaos: setup ## pull the plug N times (500) and look for anything lost
	"$(BIN)/python" -m pytest -k chaos --kills $(N) --timeout 0

.PHONY: clean
clean: ## remove the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment ------------------------------------------------------------------------------

# A Python that is new enough and can make environments: `python3` if it is, else the newest.
define FIND_PYTHON
for name in $${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do \
	if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then python="$$name"; break; fi; \
done; \
if [ -z "$${python:-}" ]; then \
	echo "setup: needs Python 3.11 or newer with venv; 'python3' here is: $$(python3 -V 2>&1 || true)" >&2; \
	echo "hint: install python3.11 or newer (Debian, Ubuntu: apt-get install python3 python3-venv)," >&2; \
	echo "      or name one: make setup PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef

# The packages lie in the repository itself: one line in a .pth file finds them, two launchers start
# the programs. That needs no build back-end and no network.
define LAUNCHER
#!/bin/sh
'''exec' "$(BIN)/python" "$$0" "$$@"
' '''
import sys

from %s.__main__ import main

sys.exit(main())
endef
export LAUNCHER

# One changing line on a terminal, a line for every 20 packages elsewhere.
define PROGRESS
/^Collecting / { n++; if (tty) printf "\r\033[K  %3d of %d  %s", n, total, $$2; \
	else if (n % 20 == 0) printf "  %3d of %d packages\n", n, total; fflush() } \
/^Installing collected/ { printf tty ? "\r\033[K  installing\n" : "  installing\n"; fflush() } \
/^ERROR/ { print; fflush() }
endef

export PROGRESS

$(STAMP): requirements/dev.txt
	@$(FIND_PYTHON); \
	if ! "$(BIN)/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "setup: making .venv with $$("$$python" -V)"; \
		"$$python" -m venv --clear "$(VENV)"; \
	fi
	@set -o pipefail; echo "setup: installing $$(grep -c '==' requirements/dev.txt) packages (once, a minute or two)"; \
	if [ -t 1 ]; then tty=1; else tty=0; fi; \
	"$(BIN)/python" -m pip install --require-hashes -r requirements/dev.txt 2>&1 \
		| tee "$(VENV)/setup.log" \
		| awk -v tty=$$tty -v total=$$(grep -c '==' requirements/dev.txt) "$$PROGRESS" \
		|| { tail -n 15 "$(VENV)/setup.log" >&2; \
		     echo "setup: failed, see .venv/setup.log; try again with: make setup" >&2; exit 1; }
	@site=$$("$(BIN)/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	echo "$(CURDIR)" > "$$site/rimward.pth"; \
	for pair in rimward:hub rimward-agent:agent; do \
		printf "$${LAUNCHER}\n" "$${pair#*:}" > "$(BIN)/$${pair%%:*}"; \
		chmod +x "$(BIN)/$${pair%%:*}"; \
	done
	@rm -f "$(VENV)"/.ready-*; touch "$@"; echo "setup: ready"
