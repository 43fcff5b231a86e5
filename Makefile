# `make demo` and `make test` work on a bare machine with python3 (3.11 to 3.13), venv and make.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo test lint embeddings clean

demo: $(VENV)/.installed
	$(PY) demo.py

test: $(VENV)/.installed-dev
	$(PY) -m pytest -q

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# The class embeddings from the taxonomies; the files come out the same byte for byte.
embeddings: $(VENV)/.installed
	for tree in embeddings/taxonomies/*.txt; do \
	    $(PY) compute_class_embedding.py --hierarchy $$tree --out $${tree%.txt}.npz || exit 1; \
	done

# A stamp is written only after pip succeeded, so an interrupted install is repeated and a finished
# one is not; a changed requirements file makes it out of date.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and \
	    f"python3 is {v[0]}.{v[1]}, but 3.11 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt requirements-serve.txt \
    $(VENV)/.installed | $(VENV)/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache demo_results
