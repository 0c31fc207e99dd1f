"""Markdown as GitHub shows it."""

from __future__ import annotations

import pytest
from made_results import make_seeds, paper_table

from debias_zoo.reports.markdown import escape
from debias_zoo.reports.report import render
from debias_zoo.reports.table import build_table

GOLDEN = """\
| Method | Accuracy | Published | Unbiased | Bias-aligned | Bias-conflicting | Worst-group | Gap | Supervision | Seconds |
| :-- | --: | --: | --: | --: | --: | --: | --: | :-- | --: |
| erm | 40.56 ± 0.45 | 40.55 | 39.56 ± 0.45 | **99.00** ± 0.00 | 35.56 ± 0.45 | 20.28 ± 0.22 | 63.44 ± 0.45 | no bias labels | 100 |
| gray<sup>†</sup> | **71.52** ± 0.43 | 83.74 | **70.52** ± 0.43 | **99.00** ± 0.00 | **66.52** ± 0.43 | **35.76** ± 0.21 | **32.48** ± 0.43 | no bias labels | 100 |
| rebias<sup>†</sup> | 44.33 ± 3.06 | – | 43.33 ± 3.06 | **99.00** ± 0.00 | 39.33 ± 3.06 | 22.17 ± 1.53 | 59.67 ± 3.06 | no bias labels | 100 |
| blindeye | 46.04 ± 1.10 | 67.41 | 45.04 ± 1.10 | **99.00** ± 0.00 | 41.04 ± 1.10 | 23.02 ± 0.55 | 57.96 ± 1.10 | bias labels to train | 100 |
| lnl<sup>‡</sup> | 55.14 ± 1.93 | 81.85 | 54.14 ± 1.93 | **99.00** ± 0.00 | 50.14 ± 1.93 | 27.57 ± 0.96 | 48.86 ± 1.93 | bias labels to train | 100 |
| lnl_adaptive<sup>‡</sup> | <u>60.34</u> ± 1.39 | 83.93 | <u>59.34</u> ± 1.39 | **99.00** ± 0.00 | <u>55.34</u> ± 1.39 | <u>30.17</u> ± 0.69 | <u>43.66</u> ± 1.39 | bias labels to train | 100 |
"""  # noqa: E501


def test_golden() -> None:
    text = render(build_table(paper_table(), problems=["failed: runs/cmnist/erm/3-0a: NaN"]), "markdown")
    assert text.startswith(GOLDEN)
    assert "<sup>†</sup> built for one kind of bias<br>\n<sup>‡</sup> settings chosen on val_unbiased" in text
    assert text.endswith("Not in the table:\n\n- failed: runs/cmnist/erm/3-0a: NaN\n")


def test_one_seed_has_no_plus_minus_in_the_table() -> None:
    table = render(build_table(paper_table(1)), "markdown").split("\n\n")[0]
    assert "±" not in table
    assert "| 40.12 |" in table


def test_blocks_have_titles_and_rows_their_settings() -> None:
    sweep = [r for v in (0.03, 0.02) for s in (1, 2) for r in make_seeds("a", [0.5], params={"v": v}, config={"s": s})]
    text = render(build_table(sweep), "markdown")
    assert text.index("**cmnist, v=0.02**\n\n| Method") < text.index("**cmnist, v=0.03**\n\n| Method")
    assert text.count("| a (a.s=1) |") == text.count("| a (a.s=2) |") == 2
    assert "Published" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lnl_adaptive", "lnl_adaptive"),
        ("_a_ b_", r"\_a\_ b\_"),
        ("a_b & <c>", "a_b &amp; &lt;c&gt;"),
        ("a|b*c`d", r"a\|b\*c\`d"),
        ("[x](y) #1 $z$ ~ {}\\", r"\[x\](y) \#1 \$z\$ \~ \{\}\\"),
        ("two\nlines", "two lines"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_an_odd_name_keeps_the_columns() -> None:
    line = render(build_table(make_seeds("a|b", [0.5])), "markdown").splitlines()[2]
    assert line.replace(r"\|", "").count("|") == 10
