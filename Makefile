.PHONY: lint types test slow bench docs results

lint:
	ruff format --check .
	ruff check .

types:
	mypy

test:
	pytest

slow:
	pytest -m slow

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
