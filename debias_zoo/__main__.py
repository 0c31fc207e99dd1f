"""``python -m debias_zoo`` is ``debias-zoo``."""

from __future__ import annotations

from .cli import main

main()
