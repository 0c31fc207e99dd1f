"""A comparative zoo of debiasing methods for image classifiers."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

_checkout = Path(__file__).resolve().parent.parent
if not (Path(__file__).parent / "methods").is_dir() and (_checkout / "methods").is_dir():
    __path__.append(str(_checkout))  # a checkout whose relative links are plain files, as on Windows
