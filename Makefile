# Everything runs in .venv, which the first target makes. `make PYTHON=python3.12 test` makes it anew by another Python.
PYTHON ?= python3
BIN := .venv/bin
NEW = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
KEEP := true
ifeq ($(origin PYTHON),command line)
ifneq ($(shell command -v $(PYTHON) >/dev/null && $(PYTHON) -V),$(shell test -x $(BIN)/python && $(BIN)/python -V))
KEEP := false
.PHONY: .venv/installed
endif
endif
BEST = "$$(ls -t runs/quickstart/version_*/checkpoints/best.ckpt | head -n 1)"
MODEL := runs/quickstart/model.onnx

.PHONY: quickstart test test-slow web bench check format constraints

quickstart: .venv/installed
	@echo; echo "== Train on the handwritten digits that come with scikit-learn"
	$(BIN)/python -m cifar_lightning fit --config configs/quickstart.yaml
	@echo; echo "== Test the best epoch"
	$(BIN)/python -m cifar_lightning test --ckpt_path $(BEST)
	@echo; echo "== Export it as one ONNX file, proven equal to the checkpoint"
	$(BIN)/python -m cifar_lightning export --ckpt_path $(BEST) --output $(MODEL)
	@echo; echo "== Verify the file as its receiver would: no PyTorch from here on"
	$(BIN)/python -m cifar_onnx verify $(MODEL)
	@echo; echo "== Classify the pictures that the file carries"
	$(BIN)/python -m cifar_onnx info $(MODEL) --samples runs/quickstart/samples
	$(BIN)/python -m cifar_onnx classify --model $(MODEL) --top-k 3 runs/quickstart/samples
	@echo; echo "== Done. With photos of your own: README.md, From photos to predictions"

# Two at a time, of one thread each: two PyTorch processes of two threads would slow each other down ten times.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

# What the page runs models with in a browser, and what node.mjs needs: npm packages, 200 MB, in export/js.
web:
	cd export/js && npm install --ignore-scripts --no-package-lock --no-audit --no-fund

# This project and its peers side by side; CIFAR-10 as pictures in data/cifar10-jpeg, or another DATA.
DATA ?= data/cifar10-jpeg
bench: .venv/installed .venv-peers/installed
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/inference.py
	$(BIN)/python benchmarks/training.py --data $(DATA)
	test ! -d $(DATA) || $(BIN)/python benchmarks/accuracy.py --data $(DATA)

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Newer versions of everything: afterwards run the tests, and commit.
constraints: .venv/installed
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --upgrade --no-emit-package cifar-onnx \
		--no-emit-index-url --no-annotate --no-header -q -o constraints.txt

.venv/installed: pyproject.toml export/pyproject.toml constraints.txt
	@{ $(KEEP) && $(BIN)/python -c "import pip; $(NEW)"; } 2>/dev/null || { \
		$(PYTHON) -c "$(NEW)" 2>/dev/null || \
		{ echo "error: $(PYTHON) is no Python 3.11 to 3.14; name one, as in make PYTHON=python3.12 test"; exit 2; }; \
		rm -rf .venv; $(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "error: $(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 2; }; }
	@echo "Installing into .venv (about 3 minutes and 6 GB, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt \
		-e ./export -e ".[test,check]"
	@touch $@

.venv-peers/installed: benchmarks/peers/requirements.txt
	@test -x .venv-peers/bin/pip || $(PYTHON) -m venv .venv-peers
	@echo "Installing the peers into .venv-peers"
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@
