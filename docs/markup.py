"""Markdown from facts: tables, docstrings, links; what stands in a docstring is shown as it stands there."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is a bar. Without rows: nothing."""
    lines = [_line(row) for row in rows]
    return "\n".join([_line(header), f"|{'---|' * len(header)}", *lines, ""]) if lines else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", " ".join(cell.split())) for cell in cells) + " |"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """A table of two columns without a header: what, and its value."""
    lines = [f"* - {what}\n  - {' '.join(value.split())}" for what, value in rows]
    return "\n".join(["```{list-table}", ":class: facts", *lines, "```", ""]) if lines else ""


def prose(docstring: str) -> str:
    """A docstring as Markdown: indented lines, which are equations, stand in blocks of their own."""
    return "\n\n".join(_part(part) for part in _parts(docstring)) + "\n"


def _parts(docstring: str) -> list[str]:
    """Paragraphs and blocks: lines that are indented, or are not, with the empty lines between them."""
    parts: list[list[str]] = []
    for line in docstring.splitlines():
        indented = line.startswith("    ")
        if not line.strip():
            if parts and parts[-1]:
                parts.append([])
            continue
        if not parts or (parts[-1] and parts[-1][0].startswith("    ") != indented):
            parts.append([])
        parts[-1].append(line)
    return ["\n".join(part) for part in parts if part]


def _part(part: str) -> str:
    if part.startswith("    "):
        return f"```text\n{textwrap.dedent(part)}\n```"
    return plain(part)


def plain(text: str) -> str:
    """Text that is no Markdown, but for names in backticks."""
    pieces = re.split(r"(``?[^`]+``?)", text)
    return "".join(
        piece if k % 2 else re.sub(r"([\\*_<\[\]$])", r"\\\1", piece).replace("://", ":&#47;/")
        for k, piece in enumerate(pieces)
    )


def linked(text: str) -> str:
    """``plain``, with addresses as links."""
    pieces = re.split(r"(https?://[^\s,;()]*[^\s,;().])", text)
    return "".join(f"<{piece}>" if k % 2 else plain(piece) for k, piece in enumerate(pieces))


def code(value: Any) -> str:
    """A value as it stands in a command line, in code letters."""
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def listed(values: Iterable[Any]) -> str:
    """Values in code letters, with commas."""
    return ", ".join(code(value) for value in values)


def items(texts: Iterable[str]) -> str:
    """A list, a line each."""
    return "".join(f"- {text}\n" for text in texts)


def source(file: str, depth: int) -> str:
    """A file of the repository to unfold; ``depth``: how many folders below ``docs`` the page lies."""
    up = "../" * (depth + 1)
    included = f"```{{literalinclude}} {up}{file}\n:language: python\n```"
    return f"<details>\n<summary>{file}</summary>\n\n{included}\n\n</details>\n"


def page(*parts: str) -> str:
    """The parts that are not empty, an empty line between them."""
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
