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

# The real receipts that `make bench` measures on: a file, or online-retail, which downloads them; and the days it cuts at.
REAL ?= online-retail
CUTS := 2011-08-09 2011-09-09 2011-10-09 2011-11-09

.PHONY: help book test html refresh lab bench lock clean

help:
	@echo "make book     install, run every chapter, render _build/html, say where it is and what each chapter took"
	@echo "make test     install, pass the tests: package, notebooks, book, browser"
	@echo "make html     render the committed outputs, without running anything"
	@echo "make refresh  run the lessons into book/ and measure them (one: build_book.py refresh 03_embeddings)"
	@echo "make lab      open the chapters in JupyterLab (RECBOOK_DATA=receipts.csv make lab: on your receipts)"
	@echo "make bench    measure everything again, writing results/ (REAL=data.csv.gz: the real receipts, if you have them)"
	@echo "make lock     write constraints.txt anew;  make clean: remove .venv and _build"

book: $(BOOK)
	@$(BIN)/python build_book.py book

test: $(TEST)
	@env -u RECBOOK_DATA RECBOOK_HOME=$(CURDIR)/_build/home HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest -rs --nbval --nbval-current-env tests book

html: $(BOOK)
	@$(BIN)/python build_book.py html

refresh: $(BOOK)
	@$(BIN)/python build_book.py refresh

lab: $(BOOK)
	@RECBOOK_DATA=$(RECEIPTS) $(BIN)/jupyter lab book

# Everything in results/ but chapters.json, which `make refresh` writes. The cuts are the four of Chapter 2.
bench: $(BOOK)
	$(BIN)/python benchmarks/cleaning.py --data $(REAL)
	$(BIN)/python benchmarks/shop_fidelity.py --real $(REAL)
	$(BIN)/recbook score --data embedded --cut 2011-11-09 --baselines
	set -e; for cut in $(CUTS); do $(BIN)/recbook score --data $(REAL) --cut $$cut --baselines; done
	$(BIN)/python benchmarks/embeddings.py --data embedded
	$(BIN)/python benchmarks/embeddings.py --data $(REAL)
	$(BIN)/python benchmarks/search_shop.py --data embedded
	$(BIN)/python benchmarks/search_shop.py --data $(REAL)
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/tokens.py --data embedded
	$(BIN)/python benchmarks/tokens.py --data $(REAL)
	$(BIN)/python benchmarks/language_model.py --data embedded
	$(BIN)/python benchmarks/language_model.py --data $(REAL)
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/baskets.py score --data embedded
	$(BIN)/python benchmarks/baskets.py score --data $(REAL)
	$(BIN)/python benchmarks/baskets.py steps --data embedded
	$(BIN)/python benchmarks/baskets.py steps --data $(REAL) --cut 2011-10-09 --epochs 2
	$(BIN)/python benchmarks/baskets.py unsold --data $(REAL) --cut 2011-10-09 --epochs 3
	$(BIN)/python benchmarks/baskets.py growth --data embedded
	$(BIN)/python benchmarks/lora.py --data embedded
	$(BIN)/python benchmarks/lora.py --data $(REAL)
	$(BIN)/python benchmarks/full_model.py --data $(REAL) --model _build/full
	$(BIN)/python benchmarks/quantization.py ladder --size full --data $(REAL) --model _build/full
	$(BIN)/python benchmarks/quantization.py ladder --size laptop --data embedded
	$(BIN)/python benchmarks/quantization.py baskets --data embedded
	$(BIN)/python benchmarks/quantization.py baskets --data $(REAL)
	$(BIN)/python benchmarks/quantization.py kernels
	$(BIN)/python benchmarks/ranking.py channels --data embedded
	$(BIN)/python benchmarks/ranking.py channels --data $(REAL)
	$(BIN)/python benchmarks/ranking.py blend --data embedded
	$(BIN)/python benchmarks/ranking.py blend --data $(REAL)
	$(BIN)/python benchmarks/failures.py --data embedded
	$(BIN)/python benchmarks/failures.py --data $(REAL)
	$(BIN)/python benchmarks/llm_ranking.py --data embedded
	$(BIN)/python benchmarks/llm_ranking.py --data $(REAL)
	$(BIN)/python benchmarks/narratives.py --data embedded
	$(BIN)/python benchmarks/narratives.py --data $(REAL)
	$(BIN)/python benchmarks/distillation.py score --data embedded
	$(BIN)/python benchmarks/distillation.py score --data $(REAL)
	$(BIN)/python benchmarks/distillation.py steps --data embedded
	$(BIN)/python benchmarks/system.py scoreboard --data embedded
	$(BIN)/python benchmarks/system.py scoreboard --data $(REAL)
	$(BIN)/python benchmarks/system.py latency --data embedded
	$(BIN)/python benchmarks/system.py latency --data $(REAL)
	$(BIN)/python benchmarks/peers.py --data $(REAL) --cut 2011-10-09
	$(BIN)/python benchmarks/peers.py --data $(REAL)

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
