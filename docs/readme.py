"""Write the README's tables: methods and data sets from the facts of their classes, results from the ledger.

python docs/readme.py            writes them
python docs/readme.py --check    exits 1 where they are stale
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from debias_zoo.listing import rows

OURS = "debias-zoo"
DOCS = Path(__file__).resolve().parent
README = DOCS.parent / "README.md"
LEDGER = DOCS / "results" / "ledger.md"
SHOWN = 16
"""Published numbers of the ledger that the README repeats."""


def _ours(what: str) -> list[dict[str, Any]]:
    return [row for row in rows(what) if row["origin"] == OURS]


def methods() -> str:
    """One row a method: name, which bias labels it reads, paper."""
    lines = ["| name | labels | paper |", "|---|---|---|"]
    for row in _ours("methods"):
        first, _, rest = row["authors"].partition(", ")
        paper = f"{first}{' et al.' if rest else ''}, {row['title']}, {row['venue']} {row['year']}"
        lines.append(f"| `{row['name']}` | {row['supervision']} | {paper} |")
    return "\n".join(lines)


def datasets() -> str:
    """One row a data set: name, bias attribute, title."""
    lines = ["| name | bias | |", "|---|---|---|"]
    lines += [f"| `{row['name']}` | {row['bias']} | {row['title']} |" for row in _ours("datasets")]
    return "\n".join(lines)


def ledger() -> str:
    """The first published numbers of the ledger: ours in the last epoch and in the one that is best on the test."""
    lines = [
        "| method | data | metric | published | ours, last epoch | difference | best epoch on the test | seeds |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    data, found = "", list[list[str]]()
    for line in LEDGER.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("*") and not line.startswith("**"):
            data = line.strip("*")
        elif len(cells) > 5 and cells[5] in ("last", "oracle"):
            method, metric, published, mean, seeds, epoch, difference = cells[:7]
            if epoch == "last":
                where = f"`{data.replace(', ', ':', 1)}`"
                found.append([f"`{method}`", where, metric.lower(), published, mean, difference])
            else:  # of the same trials
                found[-1] += [mean, seeds]
    lines += [f"| {' | '.join(row)} |" for row in found[:SHOWN]]
    return "\n".join(lines)


def renewed(text: str) -> str:
    """``text`` with what stands between ``<!-- name -->`` and ``<!-- end -->`` written anew."""
    for name, table in (("methods", methods()), ("datasets", datasets()), ("ledger", ledger())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        if not re.search(pattern, text, re.S):
            raise SystemExit(f"the README has no place for {name}: <!-- {name} --> ... <!-- end -->")
        text = re.sub(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text, flags=re.S)
    return text


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table is stale")
    old = README.read_text()
    new = renewed(old)
    if parser.parse_args().check:
        return int(old != new)
    README.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
