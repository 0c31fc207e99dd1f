"""Published numbers beside ours: every line of ``published.csv``, with each row of ``docs/results`` that answers it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markup import linked, listed, table

from debias_zoo.reports.cells import TITLES, UNREAD, percent, spread
from debias_zoo.reports.ledger import answers, judged
from debias_zoo.reports.published import Published, published
from debias_zoo.reports.rows import Row
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_runs

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Answer:
    """Our row for a published number, and the folder of ``docs/results`` that holds it."""

    row: Row
    folder: str


@lru_cache(maxsize=1)
def answered() -> dict[int, list[Answer]]:
    """Our rows by the position of the published number; not those of folders whose settings were tried."""
    position = {id(number): k for k, number in enumerate(published())}
    tried = (RESULTS / "tried.txt").read_text().split()
    found: dict[int, list[Answer]] = {}
    for folder in sorted(command.parent for command in RESULTS.glob("*/command.txt")):
        results = [run.result for run in read_runs(folder)[0]] if folder.name not in tried else []
        for block in build_table(results).blocks if results else ():
            for row, number in answers(block):
                found.setdefault(position[id(number)], []).append(Answer(row, folder.name))
    return found


def numbers(title: str, of: str, known: Iterable[str], other: str, up: str) -> str:
    """A section with the numbers of one method or data set; nothing where none was published.

    Args:
        title: its heading.
        of: the name, a method's or a data set's.
        known: names on the other side that have pages.
        other: "method" or "dataset", the column that is shown.
        up: from the page to the documentation's root.
    """
    known = frozenset(known)
    rows, all_read = [], True
    for k, number in enumerate(published()):
        mine, shown = (number.dataset, number.method) if other == "method" else (number.method, number.dataset)
        if mine != of:
            continue
        all_read = all_read and number.verified
        name = f"[{shown}](../{other}s/{shown}.md)" if shown in known else shown
        setting = listed(f"{key}={value}" for key, value in number.setting.items())
        paper = f"{percent(number.mean)}{spread(number.std)}{'' if number.verified else MARK}"
        start = [name, setting, TITLES[number.metric], paper]
        for answer in answered().get(k, []):
            rows.append([*start, *_ours(answer, number, up), linked(number.source)])
        if k not in answered():
            rows.append([*start, "–", "", linked(number.source)])
    if not rows:
        return ""
    head = "Method" if other == "method" else "Data"
    text = table([head, "Setting", "Metric", "Published", "Ours", "Verdict", "Source"], rows)
    unread = "" if all_read else f" {MARK}: not read in the paper itself."
    return f"## {title}\n\n{NOTE.format(up=up)}{unread}\n\n{text}"


MARK = f"\\{UNREAD}"
NOTE = (
    "In per cent, ± the sample standard deviation over seeds. A verdict compares as "
    "[the ledger]({up}protocol.md#published-numbers-and-the-ledger) does; – : not run here."
)


def _ours(answer: Answer, number: Published, up: str) -> list[str]:
    row, value = answer.row, answer.row.values[number.metric]
    if value is None:
        return ["–", "no number"]
    seeds = f"{len(row.seeds)} seed{'s' if len(row.seeds) > 1 else ''}"
    where = f"[{row.trial.protocol}, {seeds}]({up}results/{answer.folder}/ledger.md)"
    return [f"{percent(value.mean)}{spread(value.std)} ({where})", judged(row, number, value.mean, value.std)]
