"""The pages of the documentation as tests see them: their code, their commands with what these print, their links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from debias_zoo.cli import cli

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), DOCS / "results" / "README.md"]
"""Pages that people wrote."""

SHEETS = sorted(DOCS.glob("results/*/*.md"))
"""Documents of measured results, which name the commands that made them."""

PROGRAM = "debias-zoo"


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its text without the fences."""

    language: str
    text: str


def name_of(page: Path) -> str:
    """For test ids."""
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[Block]:
    """Fenced blocks, in order."""
    return [Block(*found) for found in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.S | re.M)]


def python(text: str) -> list[str]:
    """Python blocks, in order."""
    return [block.text for block in blocks(text) if block.language == "python"]


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Each command of the console blocks, with what the page says that it prints: "" where it says nothing."""
    for block in blocks(text):
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                command = re.match(r"(?:.*\\\n)*.*\n", part)  # lines that end in a backslash, and one that does not
                assert command is not None
                yield command[0].replace("\\\n", " ").strip(), part[command.end() :]


def commands(text: str) -> list[list[str]]:
    """The arguments of every mention of the program: in blocks, in code letters, and in tables of reports."""
    found = []
    for block in re.findall(r"^```[^\n]*\n(.*?)^```$|^((?:    [^\n]*\n)+)", text, re.S | re.M):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            found += _of_line(line.strip().removeprefix("$ "))
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    for words in re.findall(r"`([^`]+)`", prose):
        words = " ".join(words.split())
        short = re.match(r"(report|probe|explain) runs/", words)
        found += _of_line(f"{PROGRAM} {words}" if short else words)
    return found


def _of_line(line: str) -> list[list[str]]:
    line = re.sub(r"\s+#.*$", "", line)
    starts = [piece.strip() for piece in line.split("&&")]
    words = [shlex.split(piece) for piece in starts if re.match(rf"{PROGRAM}( |$)", piece)]
    return [[word for word in found[1:] if word != "..."] for found in words]


def links(text: str) -> list[str]:
    """Targets of links and images to other files, code left out."""
    prose = re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.S | re.M)
    targets = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose)
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """Of the headings, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def parse(words: list[str]) -> None:
    """Parse a command line as the program does, without running it; what must still be given may be missing."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        if words[0] in ("--help", "--version"):
            return
        known = command.commands
        name = next((name for name in words[0].split("|") if name in known), None)
        assert name is not None, f"{command.name} has no command {words[0]!r}"
        command, words = known[name], words[1:]
    if isinstance(command, click.Group):
        return
    first = [re.sub(r"^(\w+)\|.*", r"\1", word) for word in words]
    try:
        command.make_context(command.name, first)
    except click.MissingParameter:
        return  # a mention of the command alone
    except click.BadParameter as error:
        if not re.search("does not exist|there is no file", error.message):  # of a file that the page speaks of
            raise
