# `make book` builds the book, `make test` checks everything; both set up what they need in .venv.
#
#   PYTHON=python3.12                          the interpreter that .venv is made from (3.11 or newer)
#   TORCH_ARGS="..."                           given to pip with torch; to choose a CPU build, 20 times smaller, say
#   PORT=8000                                  where `make serve` listens

PYTHON ?= python3
TORCH_ARGS ?=
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
RUN := $(PY) tests/run_parts.py

.DEFAULT_GOAL := help
.PHONY: help setup book test check serve new-paper strip clean
.DELETE_ON_ERROR:

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | \
	    while IFS="$$(printf '\t')" read -r goal about; do printf '  make %-12s %s\n' "$$goal" "$$about"; done

setup: $(VENV)/ready  ## .venv with everything (done by itself when needed)

book: $(VENV)/ready  ## build the book into _build/html, warnings as errors
	@$(RUN) book

test: $(VENV)/ready  ## everything: lint, tests, notebooks, book, browser; says how long each part took
	@$(RUN) test

check: $(VENV)/ready  ## lint and fast tests, before each commit (under 5 minutes)
	@$(RUN) check

serve: book  ## the built book at http://localhost:8000 (PORT=...)
	@echo "The book is at http://localhost:$(PORT)/  (Ctrl+C stops)"
	@$(PY) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html >/dev/null

new-paper: $(VENV)/ready  ## KEY=bibtexkey: write the stub of a paper and its test
	@test -n "$(KEY)" || { echo "which paper? make new-paper KEY=veit2018convolutional"; exit 2; }
	@$(PY) -m dynnotes new-paper "$(KEY)"

strip: $(VENV)/ready  ## take outputs and noise out of the notebooks
	@$(RUN) strip

clean:  ## remove what was built; .venv stays
	rm -rf _build papers build dist *.egg-info

# Torch first and alone, so that nothing installed later can choose another build of it.
$(VENV)/torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "$(PYTHON) is missing or older than 3.11; say which to use: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(PY) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); } || \
	    { rm -rf $(VENV); echo "no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "installing torch (the first time takes a few minutes)"
	@$(PIP) $(TORCH_ARGS) torch
	@touch $@

$(VENV)/ready: $(VENV)/torch pyproject.toml
	@echo "installing the rest"
	@$(PIP) setuptools wheel pylatexenc pyyaml   # what the build of the package itself needs
	@$(PIP) --no-build-isolation --editable '.[models,book,dev]'
	@$(PIP) --no-deps torchvision timm           # without: timm would bring another torch
	@$(PIP) --no-deps transformers tokenizers regex  # for tests alone, and what else it asks for is there
	@# Tests interpret the GPU kernels. CUDA builds of torch bring the triton they need, CPU builds none; it is for Linux.
	@test "$$(uname -s)" != Linux || $(PY) -c 'import triton' 2>/dev/null || $(PIP) --no-deps triton==3.9.0
	@touch $@
