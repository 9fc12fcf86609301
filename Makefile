# Everything goes through .venv, which the first target makes. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
MODEL := .build/smollm2-135m-instruct
# .venv is ours, so Python keeps in it what it compiled, also where an image for containers says not to: else every process
# compiles torch, transformers and vllm anew, which takes ten seconds and more.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test lint types imports unit model bench bench-check clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 20

demo: .setup-demo model  ## install, build a small model; revise, sample, judge and train for real
	$(BIN)/cai run examples/demo.yaml
	$(BIN)/cai train sft examples/demo.yaml
	$(BIN)/cai train dpo examples/demo.yaml
	@echo "For example: $(BIN)/cai why runs/demo $$(grep -o '"id": "[0-9a-f]*' runs/demo/sft/train.jsonl | head -1 | cut -c8-)"

test: .setup-dev model lint types imports unit  ## ruff, mypy, import contracts and all tests

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

imports:
	$(BIN)/lint-imports

unit:
	$(BIN)/pytest

model:
	@mkdir -p .build
	@$(BIN)/python scripts/smollm2.py $(MODEL)

bench: .setup-dev model  ## run the benchmarks one after another (long)
	$(BIN)/python -m benchmarks.run_all

bench-check:  ## list the committed claims that do not hold
	$(BIN)/python -m benchmarks.check

clean:  ## remove what was built
	rm -rf .venv .build dist

.PHONY: .setup-demo .setup-dev
.setup-demo:
	@$(PYTHON) scripts/setup.py demo
.setup-dev:
	@$(PYTHON) scripts/setup.py dev
