"""The page as text: whole without a network or a script, the numbers of the other formats, nothing that could run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import ODD_NAME, ODD_VALUE, make_comparison, make_run

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, LEAKAGE
from debias_zoo.reports.cells import percent
from debias_zoo.reports.page import to_html
from debias_zoo.reports.records import records
from debias_zoo.reports.report import Asked, make_report
from debias_zoo.reports.selection import RULES
from debias_zoo.store import Run, read_runs

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "cmnist-standard"
VOID = {"meta", "link", "input", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes and texts, and the cells of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.tables: list[list[list[tuple[dict[str, str | None], str]]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append((dict(attrs), ""))
        elif tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif {"td", "th"} & set(self.open):
            attributes, text = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = attributes, text + data

    @property
    def payload(self) -> Any:
        return json.loads(self.scripts[0])

    def numbers(self) -> dict[str, dict[str, str]]:
        """Row's id -> metric -> what stands in the cell."""
        found = {}
        tables = [table for table in self.tables if table[0][0][1] == "Method" and "Supervision" in table[0][-2][1]]
        ids = [own["data-row"] for tag, own in self.elements if tag == "tr" and "data-row" in own]
        lines = [line for table in tables for line in table[1:]]
        for place, line in zip(ids, lines, strict=True):
            found[str(place)] = {str(own["data-key"]): text for own, text in line if "data-key" in own}
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    return make_comparison(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def text(made: list[Run]) -> str:
    return to_html(made, ["failed: somewhere: <b>out of memory</b>"], Asked())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_same_bytes_twice_whatever_the_order(made: list[Run], text: str) -> None:
    assert to_html(made[::-1], ["failed: somewhere: <b>out of memory</b>"], Asked()) == text


def test_nothing_is_fetched_and_the_policy_forbids_it(text: str, page: Page) -> None:
    (policy,) = [
        own["content"]
        for tag, own in page.elements
        if tag == "meta" and own.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:;"
    )
    for tag, own in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = own.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"@import|url\((?!#)|\bfetch\(|XMLHttpRequest|sendBeacon|WebSocket|import\(", text)


def test_what_runs_carry_is_text(text: str, page: Page) -> None:
    assert len(page.scripts) == 2
    assert ODD_VALUE not in text
    rows = [row for row in page.payload["rows"] if row["name"] == ODD_NAME]
    assert [row["config"]["config"]["note"] for row in rows] == [ODD_VALUE, ODD_VALUE]
    assert "<c>" not in text
    assert "failed: somewhere: &lt;b&gt;out of memory&lt;/b&gt;" in text


def test_elements_are_closed_ids_are_unique_and_headings_in_order(page: Page) -> None:
    assert page.open == []
    ids = [own["id"] for _, own in page.elements if "id" in own]
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    targets = [own["href"] for tag, own in page.elements if tag == "a"]
    assert {str(target)[1:] for target in targets} <= set(map(str, ids))


def test_heads_have_a_scope_and_pictures_a_name(page: Page) -> None:
    assert all("scope" in own for tag, own in page.elements if tag == "th")
    pictures = [own for tag, own in page.elements if tag == "svg"]
    assert len(pictures) >= 6
    assert all(own["role"] == "img" and own["aria-label"] for own in pictures)
    assert all("aria-label" in own for tag, own in page.elements if own.get("role") == "region")


@pytest.mark.parametrize("rule", ["last", "val-unbiased", "oracle"])
def test_its_text_has_the_numbers_and_marks_of_the_table(rule: str, made: list[Run]) -> None:
    asked = Asked(rules=(rule,))
    found = Page(to_html(made, [], asked))
    table = make_report(made, [], asked).table
    for place, row in enumerate(table.rows):
        cells = found.numbers()[str(place)]
        for metric in (*ALL_METRICS, LEAKAGE):
            value = row.values[metric]
            if metric == LEAKAGE and rule != "last":  # of the last epoch's network
                continue
            spread = f" ± {percent(value.std)}" if value and value.std is not None else ""
            assert cells[metric] == (percent(value.mean) + spread if value else "–"), (row.name, metric)
            entry = found.payload["rows"][place]["choices"].get(rule, {}).get("numbers", {}).get("test", {}).get(metric)
            assert (None if not entry or len(entry) < 3 else entry[2]) == (value.rank if value else None)


@pytest.mark.parametrize("rule", RULES)
def test_it_carries_the_numbers_of_every_rule(rule: str, made: list[Run], page: Page) -> None:
    for record in records(make_report(made, [], Asked(rules=(rule,))).table):
        (row,) = [
            row
            for row in page.payload["rows"]
            if row["name"] == record["method"] and row["config"]["params"] == record["params"]
        ]
        choice = row["choices"].get(rule, {"numbers": {}})
        assert row["levels"][rule] == record["supervision"]
        assert (rule in row["choices"]) == (record["accuracy"] is not None)
        for metric in ALL_METRICS:
            entry = choice["numbers"].get("test", {}).get(metric, [None])
            assert entry[0] == (None if record[metric] is None else float(percent(record[metric])))
            if record[f"{metric}_std"] is not None:
                assert entry[1] == float(percent(record[f"{metric}_std"]))
                assert len(entry[3]) == record["n"]


def test_rules_that_cannot_be_asked_are_left_out_and_told(page: Page) -> None:
    rows = [row for row in page.payload["rows"] if row["name"] == "zeta"]
    assert [list(row["choices"]) for row in rows] == [["last"], ["last"]]
    assert all("predictions.npz is missing" in row["told"] for row in rows)


def test_a_sheet_is_on_it_as_it_was_asked_for(made: list[Run]) -> None:
    asked = Asked(ledger=True, rules=("last", "oracle"))
    page, once = to_html(made, [], asked), to_html(made, [], Asked())
    assert page.count(">oracle</span>") == page.count(">last</span>") > 0
    assert once.count(">oracle</span>") == 0 < once.count(">last</span>")


def test_a_page_of_no_row_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    arrays = dict(np.load(run.path / "predictions.npz"))
    np.savez(run.path / "predictions.npz", **{name: of for name, of in arrays.items() if name.startswith("test.")})
    tested = run.result.model_copy(update={"metrics": {"test": run.result.metrics["test"]}})
    text = to_html([Run(tested, run.path)], [], Asked(rules=("val",)))
    assert "No finished trial." in text
    assert "left out" in text


def test_pictures_of_the_folder_are_in_it_or_the_reason_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "cmnist-heat.png").write_bytes(b"\x89PNG")
    assert 'src="data:image/png;base64,iVBORw=="' in to_html([run], [], Asked(), tmp_path)
    (tmp_path / "other-heat.png").mkdir()
    with pytest.raises(ZooError, match=r"cannot read .*other-heat\.png"):
        to_html([run], [], Asked(), tmp_path)


def test_every_committed_number_is_in_the_page() -> None:
    runs, _ = read_runs(RESULTS)
    page = Page(to_html(runs, [], Asked()))
    table = make_report(runs, [], Asked()).table
    for place, row in enumerate(table.rows):
        for metric, value in row.values.items():
            if value is not None:
                assert page.numbers()[str(place)][metric] == f"{percent(value.mean)} ± {percent(value.std or 0.0)}"


@pytest.mark.slow
def test_two_hundred_runs_stay_below_five_megabytes(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, f"method_{i}", 0, 0.2 + i / 400, epochs=25, images=2000, seconds=9 + i) for i in range(200)
    ]
    assert len(to_html(runs, [], Asked()).encode()) < 5_000_000
