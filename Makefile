.PHONY: lint types test slow coverage lowest newest bench docs results

lint:
	ruff format --check .
	ruff check .

types:
	mypy

test:
	pytest

slow:
	pytest -m slow

coverage:
	pytest --cov --cov-report term-missing:skip-covered

# The fast tests with the lowest and the newest versions that pyproject.toml admits: make lowest PYTHON=3.12
PYTHON ?= 3.11
lowest: RESOLUTION = lowest-direct
newest: RESOLUTION = highest
lowest newest:
	uv venv --quiet --clear --python $(PYTHON) build/$@
	VIRTUAL_ENV=build/$@ uv pip install --quiet --resolution $(RESOLUTION) --editable '.[dev]'
	build/$@/bin/python -m pytest

bench:
	python tests/benchmarks/speed.py
	python tests/benchmarks/training.py
	python tests/benchmarks/cost.py
	python tests/benchmarks/grid.py
	python tests/benchmarks/reports.py
	python tests/benchmarks/data.py memory
	test -z "$$DEBIAS_ZOO_DATA" || python tests/benchmarks/data.py throughput

docs:
	sphinx-build -W -q -b html docs docs/_build

results:
	debias-zoo run --methods erm,gray,blindeye,lnl,lnl_adaptive,rebias --dataset cmnist --seeds 3 --out runs/standard
	python docs/results/collect.py runs/standard cmnist-standard \
		--command "debias-zoo run --methods erm,gray,blindeye,lnl,lnl_adaptive,rebias --dataset cmnist --seeds 3"
	python docs/results/documents.py
