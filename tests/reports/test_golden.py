"""Every sheet of one small store, byte for byte as in ``golden/``.

After a change that is meant, ``DEBIAS_ZOO_GOLDEN=1 pytest tests/reports/test_golden.py`` writes the files again: read
their diff before it is committed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from made_store import made_store

from debias_zoo.reports import ledger, published
from debias_zoo.reports.latex_text import breakable, escape
from debias_zoo.reports.published import Published
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.store import Run, read_runs

GOLDEN = Path(__file__).resolve().parent / "golden"
REGENERATE = os.environ.get("DEBIAS_ZOO_GOLDEN") == "1"

ENDINGS = {"markdown": "md", "csv": "csv", "latex": "tex"}

ASKED = {
    "table": Asked(),
    "calibration": Asked(metrics=["ece", "ece_worst", "auroc", "train_weighted"]),
    "oracle": Asked(rules=["oracle"], methods=["erm", "lnl"]),
    "selection": Asked(rules=["last", "val", "ac", "oracle"], metrics=["accuracy", "gap"]),
    "datasets": Asked(layout="methods-by-datasets", metrics=["accuracy", "gap"]),
    "settings": Asked(layout="methods-by-settings", metrics=["worst_group"]),
    "robustness": Asked(curve="conflict", metrics=["conflicting"]),
    "ledger": Asked(ledger=True),
    "cost": Asked(cost=True),
    "intervals": Asked(intervals=True, metrics=["accuracy", "worst_group"]),
    "groups": Asked(groups=True, methods=["erm", "gray"]),
    "comparison": Asked(compare="erm"),
    "all": Asked(methods=["erm", "a_b & <c>"], rules=["val"], ledger=True, cost=True, curve="conflict"),
}

PAPERS = (
    Published("erm", "cmnist-lff", {"conflict": "0.01"}, "unbiased", 0.5034, 0.0016, 5, "A & B, ICML 2020", True),
    Published("lnl", "bar", {}, "accuracy", 0.8, None, None, "C et al. (Table 1; from memory)", False),
    Published("hex", "bar", {}, "accuracy", 0.7, 0.01, 3, "C et al. (Table 1; from memory)", False),
)
"""In the place of the numbers that come with the zoo, which grow."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], list[str]]:
    out = made_store(tmp_path_factory.mktemp("store"))
    found, problems = read_runs(out)
    return found, [problem.replace(str(out), "runs") for problem in problems]


@pytest.fixture(autouse=True)
def papers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (published, ledger):
        monkeypatch.setattr(module, "published", lambda: PAPERS)


@pytest.mark.parametrize("form", ENDINGS)
@pytest.mark.parametrize("name", ASKED)
def test_a_report_is_the_golden_one(name: str, form: str, runs: tuple[list[Run], list[str]]) -> None:
    made = render_report(make_report(*runs, ASKED[name]), form)
    path = GOLDEN / f"{name}.{ENDINGS[form]}"
    out = str(runs[0][0].path.parents[2])
    text = made.replace(out, "runs").replace(breakable(escape(out)), "runs")
    if REGENERATE:
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), (
        f"if this is meant: DEBIAS_ZOO_GOLDEN=1 pytest {Path(__file__).name}"
    )


def test_every_golden_file_has_a_report() -> None:
    expected = {f"{name}.{ending}" for name in ASKED for ending in ENDINGS.values()}
    assert {path.name for path in GOLDEN.iterdir()} == expected


def test_the_order_of_the_runs_changes_no_byte(runs: tuple[list[Run], list[str]]) -> None:
    found, problems = runs
    for asked in ASKED.values():
        for form in ENDINGS:
            turned = render_report(make_report(found[::-1], problems, asked), form)
            assert render_report(make_report(found, problems, asked), form) == turned
