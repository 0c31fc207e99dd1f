"""The table in a terminal: at any width, with and without colours."""

from __future__ import annotations

import io
import re

import pytest
from made_results import make_seeds, paper_table
from rich.console import Console

from debias_zoo.reports.report import render
from debias_zoo.reports.rows import Table
from debias_zoo.reports.table import build_table
from debias_zoo.reports.terminal import render_rich

TITLES = ("Method", "Accuracy", "Published", "Unbiased", "Bias-aligned", "Bias-conflicting", "Worst-group", "Gap")


def shown(table: Table, width: int, **options: object) -> str:
    file = io.StringIO()
    Console(file=file, width=width, **options).print(render_rich(table))  # type: ignore[arg-type]
    return file.getvalue()


def test_wide_is_one_line_a_method() -> None:
    text = shown(build_table(paper_table()), 160)
    lines = text.splitlines()
    assert lines[0].split() == [*TITLES, "Supervision", "Seconds"]
    expected = (
        "erm 40.56 ± 0.45 40.55 39.56 ± 0.45 99.00* ± 0.00 35.56 ± 0.45 20.28 ± 0.22 63.44 ± 0.45 no bias labels 100"
    )
    assert expected.split() == next(line for line in lines if line.startswith("erm")).split()
    assert all(len(line) <= 160 for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_narrow_keeps_every_name_and_number_whole(width: int) -> None:
    text = shown(build_table(paper_table()), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in text
    start = next(i for i, line in enumerate(lines) if line.startswith("lnl_adaptive‡"))
    numbers = "60.34° 83.93 59.34° 99.00* 55.34° 30.17° 43.66° train 100"
    assert lines[start].split()[1:] == numbers.split()
    assert lines[start + 1].split() == ["±1.39", "±1.39", "±0.00", "±1.39", "±0.69", "±1.39"]
    assert "Supervision: none = no bias labels, train = bias labels to train." in text


def test_one_seed_at_80_columns_is_one_line_a_method_without_plus_minus() -> None:
    table = shown(build_table(paper_table(1)), 80).split("\n\n")[0]
    assert "±" not in table
    assert len([line for line in table.splitlines() if re.match("erm|gray|rebias|blindeye|lnl", line)]) == 6


def test_best_is_bold_and_second_underlined_also_without_colours() -> None:
    table = build_table(paper_table())
    for no_color in (False, True):
        text = shown(table, 160, force_terminal=True, color_system="standard", no_color=no_color)
        assert "\x1b[1m71.52\x1b[0m" in text
        assert "\x1b[4m60.34\x1b[0m" in text
        assert "Best bold, second best underlined" in text
        assert "*" not in text


def test_plain_text_marks_best_and_second() -> None:
    text = render(build_table(paper_table()), "rich")
    assert "\x1b" not in text
    assert "71.52* ± 0.43" in text
    assert "60.34° ± 1.39" in text
    assert "Best marked *, second best marked °" in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_what_is_missing_is_listed_and_markup_is_not_read() -> None:
    table = build_table(make_seeds("[red]x", [0.5]), problems=["failed: [bold]y[/bold]: NaN"])
    text = shown(table, 80, force_terminal=True)
    assert "[red]x" in text
    assert "- failed: [bold]y[/bold]: NaN" in text


def test_settings_stand_beside_or_below_the_method() -> None:
    table = build_table([r for s in (0.1, 0.3) for r in make_seeds("lnl", [0.5, 0.6], config={"scale": s})])
    assert "lnl (lnl.scale=0.3)" in shown(table, 200)
    assert re.search(r"\nlnl +55.00.*\nlnl.scale=0.3 +±7.07", shown(table, 80))


def test_blocks_have_titles() -> None:
    sweep = [r for v in (0.03, 0.02) for r in make_seeds("erm", [0.5], params={"variance": v})]
    text = shown(build_table(sweep), 100)
    assert text.index("cmnist, variance=0.02\n") < text.index("cmnist, variance=0.03\n")


@pytest.mark.parametrize("width", [1, 20, 40])
def test_no_width_is_too_small_to_print(width: int) -> None:
    assert shown(build_table(paper_table()), width)


@pytest.mark.parametrize("width", [60, 50, 40])
def test_a_narrow_terminal_keeps_the_methods_and_says_what_is_left_out(width: int) -> None:
    text = shown(build_table(paper_table()), width)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= width
    assert any(line.startswith("lnl_adaptive‡") for line in lines)
    assert "Worst-" in text
    assert "Left out for want of width: Seconds" in text
