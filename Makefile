PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint types wheel lock clean

demo: .venv/ready
	$(BIN)/selfsup sweep sweeps/demo.yaml

test: .venv/ready
	$(BIN)/pytest

test-slow: .venv/ready
	$(BIN)/pytest -m slow

lint: .venv/ready
	$(BIN)/ruff check && $(BIN)/ruff format --check

types: .venv/ready  # of the installed package: what a user's type checker sees
	rm -rf build/types && $(BIN)/uv pip install -q --no-deps --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p selfsup

wheel: .venv/ready
	$(BIN)/python -c "from pathlib import Path; from selfsup.pipelines.submit import build_wheel as make; print(make(Path(), Path('dist')))"

lock: .venv/ready
	$(BIN)/uv pip compile -q --universal --extra test --no-header --no-annotate -o infra/requirements.lock pyproject.toml

.venv/ready: pyproject.toml infra/requirements.lock
	$(PYTHON) -m venv .venv && $(BIN)/pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --compile-bytecode -r infra/requirements.lock && $(BIN)/uv pip install -q --no-deps -e .
	touch $@

clean:
	rm -rf build dist .venv
