# Two commands matter: `make demo` and `make test`. Both build the environment they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TWO := -n 2 --dist loadfile# two processes; the tests of a file share what they made
export TOKENIZERS_PARALLELISM ?= true

.PHONY: demo browser test test-fast lint docs bench bench-gpu torture reliability install clean

install: $(VENV)/.installed $(VENV)-object-store/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)-object-store/.installed: tests/object_store/requirements.txt # the server of a test; its botocore is not the one of our s3fs
	$(PYTHON) -m venv $(VENV)-object-store
	$(VENV)-object-store/bin/pip install --quiet -r tests/object_store/requirements.txt
	@touch $@

browser: ## Chromium from Debian, for the tests of the report; only where it is missing
	@tools/install_chromium.sh

demo: install ## from nothing to a measured head start, about six minutes on 2 cores
	$(BIN)/headstart demo --out demo

test: install browser ## everything, at most 25 minutes on 2 cores, no network
	$(BIN)/python -m pytest tests $(TWO)

test-fast: install ## the quick ones, at most 3 minutes
	$(BIN)/python -m pytest tests -m 'not slow' $(TWO)

lint: install
	$(BIN)/ruff check src tests benchmarks examples tools
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/import_graph.py --check
	$(BIN)/python tools/fill_docs.py --check

docs: install
	$(BIN)/mkdocs build --strict

bench: install ## the lines of docs/performance.md that a CPU decides, under 30 minutes on 2 quiet cores; writes benchmarks/results/*.json
	$(BIN)/python -m benchmarks.training_step causal-lm --batch 4 --seq 256 --warmup 1 --steps 1 --repeats 2
	$(BIN)/python -m benchmarks.continue_step --batch 4 --seq 256 --warmup 1 --steps 1 --repeats 2
	$(BIN)/python -m benchmarks.training_step electra --warmup 2 --steps 2
	$(BIN)/python -m benchmarks.training_step electra --warmup 2 --steps 2 --precision auto
	for what in mae droppos; do for precision in fp32 auto; do \
	  $(BIN)/python -m benchmarks.training_step $$what --batch 8 --warmup 1 --steps 1 --repeats 2 --precision $$precision || exit 1; done; done
	for name in products attention dropout rng sampling loader image_loader checkpoint start self_distill sparse_step ngram extract trace; do $(BIN)/python -m benchmarks.$$name || exit 1; done
	for size in tiny small; do $(BIN)/python -m benchmarks.engine_overhead --size $$size || exit 1; done
	for kind in wordpiece bpe unigram; do $(BIN)/python -m benchmarks.tokenization --mb 12 --kind $$kind || exit 1; done
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python tools/fill_docs.py

bench-gpu: install ## the lines that a GPU decides: one script, under 8 minutes (a machine without a network: tools/gpu_day.py)
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python tools/fill_docs.py

torture: install ## 50 runs killed and started again, then one killed before every change of the disk, compared bit for bit; 25 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.torture
	OMP_NUM_THREADS=1 $(BIN)/python -m tools.kill_everywhere electra --result benchmarks/results/every_change-electra.json

reliability: install ## the tests behind docs/reliability.md; writes what came of them
	$(BIN)/python -m tools.reliability tests $(TWO)
	$(BIN)/python tools/fill_docs.py

clean: ## what the other targets made; runs/ is yours
	rm -rf $(VENV) $(VENV)-object-store demo site .pytest_cache .mypy_cache .ruff_cache
