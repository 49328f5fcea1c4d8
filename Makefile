# The two commands: `make book` and `make test`. The rest are conveniences: `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is installed: .book is for reading and running the book, .test adds what only the tests need (and serves both).
BOOK := $(VENV)/.book
TEST := $(VENV)/.test
# The same lock for what is installed and for what builds it, whatever pip's age.
PIP := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(BIN)/python -m pip --disable-pip-version-check
# Notebooks run in folders of their own, so a path to receipts must not depend on this one.
RECEIPTS := $(if $(wildcard $(RECBOOK_DATA)),$(abspath $(RECBOOK_DATA)),$(RECBOOK_DATA))

# glibc would hand back to Linux, and ask for again, the memory of every training step: a seventh of the step.
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export MALLOC_MMAP_THRESHOLD_ := 33554432

# The real receipts that `make bench` measures on: a file, or online-retail, which downloads them.
REAL ?= online-retail

.PHONY: help book test alone html refresh lab bench lock clean

help:
	@echo "make book     install, run every chapter, render _build/html, say where it is and what each chapter took"
	@echo "make test     install, pass the tests: package, notebooks, book, browser"
	@echo "make alone    run every chapter cold, each with nothing kept from before (one: CHAPTER=03_embeddings)"
	@echo "make html     render the committed outputs, without running anything"
	@echo "make refresh  run the stale lessons into book/ and measure them (one: build_book.py refresh 03_embeddings)"
	@echo "make lab      open the chapters in JupyterLab (RECBOOK_DATA=receipts.csv make lab: on your receipts)"
	@echo "make bench    measure what is stale in results/ (FLAGS=--list: say only; REAL=data.csv.gz: your copy of the log)"
	@echo "make lock     write constraints.txt anew;  make clean: remove .venv and _build"

book: $(BOOK)
	@$(BIN)/python build_book.py book

# One process: two threads of a chapter that wait for a third one's work slow it more than the other core would help.
test: $(TEST)
	@env -u RECBOOK_DATA RECBOOK_HOME=$(CURDIR)/_build/home HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest -rs --durations=30 tests

alone: $(TEST)
	@env -u RECBOOK_DATA HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -rs -m cold -k "$(CHAPTER)" tests/book/test_chapters.py

html: $(BOOK)
	@$(BIN)/python build_book.py html

refresh: $(BOOK)
	@$(BIN)/python build_book.py refresh

lab: $(BOOK)
	@RECBOOK_DATA=$(RECEIPTS) $(BIN)/jupyter lab book

# Only the figures whose code or data has changed; FLAGS=--list says which those are.
bench: $(BOOK)
	@$(BIN)/python build_book.py bench --real $(REAL) $(FLAGS)

lock: $(BOOK)
	@$(BIN)/python build_book.py lock

clean:
	rm -rf $(VENV) _build

$(BOOK) $(TEST): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "The book needs Python 3.11 or newer; '$(PYTHON)' is not there or older. Name another: make book PYTHON=python3.12"; exit 1; }
	@echo "Installing what constraints.txt locks into $(VENV) (once; some minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "No virtual environment could be made. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PIP) install -qq --editable '.[$(@F:.%=%)]'
	@touch $(BOOK) $@
