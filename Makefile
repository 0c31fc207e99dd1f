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

docs:
	python -m debias_zoo list methods
	python -m debias_zoo list datasets

results:
	debias-zoo run --methods erm,gray,blindeye,lnl,lnl_adaptive,rebias --dataset cmnist --seeds 3 --out runs/standard
	python docs/results/collect.py runs/standard docs/results/cmnist-standard
