"""LaTeX: golden rows, escaping, and that a real pdflatex takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_results import make_seeds, paper_table
from made_store import made_store, make_run

from debias_zoo.reports.latex_text import escape
from debias_zoo.reports.report import Asked, make_report, render, render_report
from debias_zoo.reports.rows import Table
from debias_zoo.reports.table import build_table
from debias_zoo.store import read_runs

GOLDEN = r"""
\midrule
\multicolumn{9}{@{}l}{\textit{no bias labels}} \\
erm & 40.56 $\pm$ 0.45 & 40.55 & 39.56 $\pm$ 0.45 & \textbf{99.00} $\pm$ 0.00 & 35.56 $\pm$ 0.45 & 20.28 $\pm$ 0.22 & 63.44 $\pm$ 0.45 & 100 \\
gray\textsuperscript{$\dagger$} & \textbf{71.52} $\pm$ 0.43 & 83.74 & \textbf{70.52} $\pm$ 0.43 & \textbf{99.00} $\pm$ 0.00 & \textbf{66.52} $\pm$ 0.43 & \textbf{35.76} $\pm$ 0.21 & \textbf{32.48} $\pm$ 0.43 & 100 \\
rebias\textsuperscript{$\dagger$} & 44.33 $\pm$ 3.06 & -- & 43.33 $\pm$ 3.06 & \textbf{99.00} $\pm$ 0.00 & 39.33 $\pm$ 3.06 & 22.17 $\pm$ 1.53 & 59.67 $\pm$ 3.06 & 100 \\
\midrule
\multicolumn{9}{@{}l}{\textit{bias labels to train}} \\
blindeye & 46.04 $\pm$ 1.10 & 67.41 & 45.04 $\pm$ 1.10 & \textbf{99.00} $\pm$ 0.00 & 41.04 $\pm$ 1.10 & 23.02 $\pm$ 0.55 & 57.96 $\pm$ 1.10 & 100 \\
lnl\textsuperscript{$\ddagger$} & 55.14 $\pm$ 1.93 & 81.85 & 54.14 $\pm$ 1.93 & \textbf{99.00} $\pm$ 0.00 & 50.14 $\pm$ 1.93 & 27.57 $\pm$ 0.96 & 48.86 $\pm$ 1.93 & 100 \\
lnl\_adaptive\textsuperscript{$\ddagger$} & \underline{60.34} $\pm$ 1.39 & 83.93 & \underline{59.34} $\pm$ 1.39 & \textbf{99.00} $\pm$ 0.00 & \underline{55.34} $\pm$ 1.39 & \underline{30.17} $\pm$ 0.69 & \underline{43.66} $\pm$ 1.39 & 100 \\
\bottomrule
\end{tabular}}
"""  # noqa: E501

ODD = 'a_b & <c> % # $ { } ~ ^ \\ | "q" `r` --x é ñ ç å ß ± † – 日本 \x07'


def odd_table() -> Table:
    results = [
        *make_seeds("a_b & <c>", [0.3, 0.4], config={"x_%": r"\{~^}#$"}),
        *make_seeds("a_b & <c>", [0.3, 0.4], config={"x_%": "y"}),
        *make_seeds("[x]* " + ODD, [0.3, 0.5]),
    ]
    return build_table(results, problems=[f"failed: runs/{ODD}", "unfinished: " + "/a_long_folder" * 20])


def long_table() -> Table:
    results = [r for s in range(60) for r in make_seeds("lnl", [0.5, 0.6], config={"scale": s, "name": "n" * 40})]
    results += [r for s in range(9) for r in make_seeds("erm", [0.5, 0.6], config={"scale": s, "to": {"n" * 30: s}})]
    return build_table(results, problems=[f"failed: {i}" for i in range(50)])


def sweep_table() -> Table:
    sweep = [r for v in (0.02, 0.03) for m in "ab" for r in make_seeds(m, [0.5, 0.6], params={"variance": v})]
    return build_table(sweep)


TABLES: dict[str, Callable[[], Table]] = {
    "paper": lambda: build_table(paper_table(), problems=["failed: runs/cmnist/lnl/3-0a: NaN"]),
    "one_seed": lambda: build_table(paper_table(1)),
    "odd": odd_table,
    "long": long_table,
    "sweep": sweep_table,
    "empty": lambda: build_table([]),
}


def test_golden_rows() -> None:
    assert GOLDEN in render(build_table(paper_table()), "latex")


def test_a_fragment_uses_booktabs_and_multirow_and_is_no_document() -> None:
    text = render(build_table(paper_table()), "latex")
    assert text.isascii()
    assert "documentclass" not in text
    assert r"\usepackage" not in re.sub("^%.*$", "", text, flags=re.MULTILINE)
    assert all(piece in text for piece in (r"\toprule", r"\bottomrule", r"\multirow{2}{*}{Method}", r"$\pm$"))
    assert r"\label{tab:cmnist}" in text


def test_a_document_holds_the_fragment_and_asks_for_what_is_in_the_base() -> None:
    table = build_table(paper_table())
    text = render(table, "latex", standalone=True)
    assert render(table, "latex") in text
    assert re.findall(r"(?m)^\\usepackage.*\{(\w+)\}$", text) == ["geometry", "booktabs", "multirow"]
    assert text.startswith(r"\documentclass")
    assert text.endswith("\\end{document}\n")


def test_one_seed_has_no_plus_minus_in_the_table() -> None:
    text = render(build_table(paper_table(1)), "latex")
    assert "pm" not in text.split(r"\begin{tabular}")[1]
    assert r"One seed (0), so no $\pm$: run at least three (-{}-seeds 3)" in text


def test_a_negative_gap_has_a_minus_and_zero_has_none() -> None:
    negative = make_seeds("a", [0.5], metrics={"test": {"gap": -0.0123}})
    assert "& $-$1.23 &" in render(build_table(negative), "latex")
    nearly = make_seeds("a", [0.5], metrics={"test": {"gap": -0.00001}})
    assert "& 0.00 &" in render(build_table(nearly), "latex")


def test_groups_blocks_notes_and_problems_are_written() -> None:
    text = render(sweep_table(), "latex")
    assert text.index(r"\textbf{cmnist, variance=0.02}") < text.index(r"\textbf{cmnist, variance=0.03}")
    text = render(TABLES["paper"](), "latex")
    below = text.split(r"\end{tabular}")[1]
    assert r"\textsuperscript{$\dagger$} built for one kind of bias" in below
    assert r"\textsuperscript{$\ddagger$} settings chosen on val\_unbiased, which reads bias labels" in below
    assert "Not in the table: \\\\\nfailed: runs/\\allowbreak{}cmnist/\\allowbreak{}lnl" in below


def test_what_is_too_long_for_a_page_goes_on_in_further_floats() -> None:
    text = render(long_table(), "latex")
    floats = text.count(r"\begin{table*}")
    assert floats == text.count(r"\end{table*}") > 2
    assert text.count(r"\caption{Table~\ref{tab:cmnist}, continued.}") == floats - 1
    assert len(re.findall(r"^lnl.* \\\\$", text, flags=re.MULTILINE)) == 60
    assert len(set(re.findall(r"\\label\{.*?\}", text))) == floats


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a_b & <c>", r"a\_b \& $<$c$>$"),
        ("100% #1 $x$ {y}", r"100\% \#1 \$x\$ \{y\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("---x", r"-{}-{}-x"),
        ("[a]*", r"{[}a]{*}"),
        ("é ñ ß ±", r"\'{e} \~{n} \ss{} $\pm$"),
        ("日\x07", r"{[}U+65E5]{[}U+0007]"),
        ("two\nlines", "two lines"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_every_printable_sign_becomes_ascii() -> None:
    assert escape("".join(map(chr, range(0x20, 0x3000)))).isascii()


def compiled(folder: Path, text: str) -> str:
    """The log of pdflatex, run as often as references need."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex; Debian has it in texlive-latex-base, with texlive-latex-recommended and -extra")
    (folder / "table.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:]
        if "undefined references" not in done.stdout:
            break
    assert (folder / "table.pdf").stat().st_size > 1000
    return done.stdout


def assert_clean(log: str) -> None:
    assert not re.search(r"(Overfull|undefined|multiply|Float too large|Missing character)", log), log


@pytest.mark.parametrize("name", TABLES)
def test_pdflatex_takes_the_document(name: str, tmp_path: Path) -> None:
    assert_clean(compiled(tmp_path, render(TABLES[name](), "latex", standalone=True)))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("options", ["", "twocolumn"])
def test_pdflatex_takes_the_fragment_in_an_article(name: str, options: str, tmp_path: Path) -> None:
    fragment = render(TABLES[name](), "latex")
    packages = r"\usepackage{booktabs}\usepackage{multirow}"
    document = (
        rf"\documentclass[{options}]{{article}}{packages}\begin{{document}}Text." + f"\n{fragment}" + r"\end{document}"
    )
    assert_clean(compiled(tmp_path, document))


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], str]:
    """A report on a small store, or on one with many long names."""
    small, large = (tmp_path_factory.mktemp(name) for name in ("small", "large"))
    made_store(small)
    for scale in range(50):
        for conflict in (0.01, 0.02, 0.05, 0.1):
            params = {"conflict": conflict, "severity": 4, "val": 6000, "a_rather_long_parameter": "n" * 20}
            make_run(large, "lnl", 0, ("test", "val"), params=params, config={"scale": scale, "name": "n" * 40})
    make_run(large, "erm", 0, ("test", "val"), params=params)
    make_run(large, "erm", 0, ("test", "val"), dataset=ODD[:20], backbone="e" * 60)
    found = {"small": read_runs(small), "large": read_runs(large)}

    def render_sheet(name: str, standalone: bool) -> str:
        store, asked = SHEETS[name]
        return render_report(make_report(*found[store], asked), "latex", standalone)

    return render_sheet


def asked_of(name: str, **asked: Any) -> dict[str, tuple[str, Asked]]:
    return {f"{name}-{store}": (store, Asked(**asked)) for store in ("small", "large")}


SHEETS = {
    **asked_of(
        "rules", rules=["last", "val", "val-unbiased", "val-worst-group", "ac", "oracle"], metrics=["accuracy", "ece"]
    ),
    **asked_of("datasets", layout="methods-by-datasets", metrics=["accuracy"]),
    **asked_of("settings", layout="methods-by-settings", metrics=["accuracy"]),
    **asked_of("ledger", ledger=True),
    **asked_of("cost", cost=True),
    **asked_of("compare", compare=""),
    **asked_of("curve", curve="conflict"),
    **asked_of("metrics", metrics=["ece", "ece_worst", "auroc", "train_weighted"]),
    "intervals-small": ("small", Asked(intervals=True)),
}


@pytest.mark.parametrize("name", SHEETS)
def test_pdflatex_takes_every_sheet(name: str, sheets: Callable[[str, bool], str], tmp_path: Path) -> None:
    assert_clean(compiled(tmp_path, sheets(name, True)))


@pytest.mark.parametrize("options", ["", "twocolumn"])
@pytest.mark.parametrize("name", [name for name in SHEETS if name.endswith("small") or name.startswith("rules")])
def test_pdflatex_takes_the_sheets_in_an_article(
    name: str, options: str, sheets: Callable[[str, bool], str], tmp_path: Path
) -> None:
    packages = r"\usepackage{booktabs}" + (r"\usepackage{multirow}" if name.startswith("metrics") else "")
    text = rf"\documentclass[{options}]{{article}}{packages}\begin{{document}}Text." + f"\n{sheets(name, False)}"
    assert_clean(compiled(tmp_path, text + r"\end{document}"))


def test_a_sheet_wider_than_the_page_is_cut_and_names_its_rows_again(sheets: Callable[[str, bool], str]) -> None:
    text = sheets("rules-small", False)
    heads = re.findall(r"(?m)^Method & (.*) \\\\$", text)
    assert heads == ["last & val & val-unbiased", "val-worst-group & ac & oracle"] * 2
    assert text.count(r"\caption{Table~\ref{tab:selection-accuracy}, continued.}") == 1
    assert len(set(re.findall(r"\\label\{.*?\}", text))) == 4
    assert text.count(r"\makebox[\linewidth]") == text.count(r"\begin{table*}") == 4


def test_a_section_that_goes_on_says_so_and_no_row_is_lost(sheets: Callable[[str, bool], str]) -> None:
    text = sheets("datasets-large", False)
    assert r"\textit{no bias labels (continued)}" in text
    assert len(set(re.findall(r"lnl.scale=(\d+)\b", text))) == 50
    assert r"\quad " in text


def test_sheets_are_ascii_and_say_what_is_bold(sheets: Callable[[str, bool], str]) -> None:
    for name in SHEETS:
        text = sheets(name, True)
        assert text.isascii()
        assert "resizebox" not in text
    assert "Best bold, second best underlined." in sheets("datasets-small", False)
    assert "underlined" not in sheets("cost-small", False)


def test_all_signs_of_a_name_can_be_typeset(tmp_path: Path) -> None:
    signs = "".join(map(chr, [*range(0x20, 0x250), *range(0x2010, 0x2030)]))
    names = [signs[i : i + 8] for i in range(0, len(signs), 8)]
    document = render(build_table([]), "latex", standalone=True)
    text = " \\par\n".join(escape(f"x {name}") for name in names)
    compiled(tmp_path, document.replace(r"\end{document}", text + "\n\\end{document}"))
