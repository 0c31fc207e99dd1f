"""Sphinx: ``make docs`` builds these pages; warnings are errors."""

from __future__ import annotations

from debias_zoo import __version__

project = "debias-zoo"
author = "the debias-zoo authors"
project_copyright = "2026, the debias-zoo authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "debias-zoo"
exclude_patterns = ["_build", "results/*/**"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
suppress_warnings = ["myst.xref_missing"]  # the README links files of the repository
