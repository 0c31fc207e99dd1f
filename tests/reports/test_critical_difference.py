"""The diagram: nothing overlaps, nothing leaves the page, the same bytes each time."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from debias_zoo.errors import ZooError
from debias_zoo.reports.critical_difference import critical_difference, draw, to_svg
from debias_zoo.reports.friedman import AverageRanks, average_ranks, critical_difference_of

NAMES = [
    *("erm", "group_dro", "lnl", "blindeye", "rebias", "rubi_label", "hex", "feature_sieve", "dedier", "denetdm"),
    *("upweight", "subsample", "lff", "jtt", "dfa", "lc", "end", "dfr", "spectral_decoupling", "domain_independent"),
]


def scored(
    methods: int, blocks: int = 12, seed: int = 0, spread: float = 0.03
) -> dict[str, dict[tuple[str, int], float]]:
    random = np.random.default_rng(seed)
    level = random.normal(0.7, spread, methods)
    return {
        name: {(f"data{block // 3}", block % 3): float(own + random.normal(0, 0.02)) for block in range(blocks)}
        for name, own in zip(NAMES, level, strict=False)
    }


def two() -> AverageRanks:
    return AverageRanks("gap", ("lnl", "erm"), (1.2, 1.8), 10, 0, 3.6, 0.058, critical_difference_of(2, 10), 0.95, ())


def cases() -> list[AverageRanks]:
    found = [two()]
    for methods in range(3, 21):
        found.append(average_ranks(scored(methods, seed=methods)))
        found.append(average_ranks(scored(methods, seed=methods, blocks=60, spread=0.1)))
        found.append(average_ranks({name: {("x", seed): 0.5 for seed in range(5)} for name in NAMES[:methods]}))
    long = {f"{name}, {name}.scale=0.3, width=7": own for name, own in scored(7).items()}
    odd = {f"${name}^{{-1}}$ \\frac": own for name, own in scored(6).items()}
    return [*found, average_ranks(long), average_ranks(odd)]


def boxes(ranks: AverageRanks) -> tuple[dict[str, Bbox], Bbox]:
    """The box of every text, and of the page."""
    figure = draw(ranks)
    canvas = FigureCanvasAgg(figure)
    (axes,) = figure.axes
    return {text.get_text(): text.get_window_extent(canvas.get_renderer()) for text in axes.texts}, figure.bbox


@pytest.mark.parametrize("ranks", cases(), ids=lambda ranks: f"{len(ranks.methods)}-{ranks.blocks}")
def test_no_text_overlaps_another_or_leaves_the_page(ranks: AverageRanks) -> None:
    found, page = boxes(ranks)
    assert len(found) == 2 * len(ranks.methods) + 4  # names, numbers of the line, the critical difference, the note
    for text, box in found.items():
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
    for (one, box), (other, its) in itertools.combinations(found.items(), 2):
        assert not box.overlaps(its), (one, other)


@pytest.mark.parametrize("ranks", cases(), ids=lambda ranks: f"{len(ranks.methods)}-{ranks.blocks}")
def test_bars_touch_neither_each_other_nor_a_name(ranks: AverageRanks) -> None:
    (axes,) = draw(ranks).axes
    bars = [line.get_xydata() for line in axes.lines if line.get_linewidth() == 3]
    names = [text.get_position()[1] for text in axes.texts if text.get_fontsize() == 9]
    assert len(bars) == len(ranks.cliques)
    for one, other in itertools.combinations(bars, 2):
        apart = abs(one[0][1] - other[0][1]) > 0.08
        beside = one[1][0] + 0.05 < other[0][0] or other[1][0] + 0.05 < one[0][0]
        assert apart or beside
    assert all(bar[0][1] - 0.1 > max(names) for bar in bars)


def test_names_stand_in_order_and_lines_start_at_their_rank() -> None:
    ranks = average_ranks(scored(7))
    (axes,) = draw(ranks).axes
    names = [text for text in axes.texts if text.get_fontsize() == 9]
    assert [text.get_text() for text in names] == [
        f"{name} ({rank:.2f})" for name, rank in zip(ranks.methods, ranks.ranks, strict=True)
    ]
    height = [text.get_position()[1] for text in names]
    assert height[:4] == sorted(height[:4], reverse=True)  # the best is highest on the left
    assert height[4:] == sorted(height[4:])  # the worst is highest on the right
    numbers = {text.get_text(): text.get_position()[0] for text in axes.texts if text.get_text().isdigit()}
    inch = (numbers["7"] - numbers["1"]) / 6
    starts = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 0.8]
    assert starts == pytest.approx([numbers["1"] + inch * (rank - 1) for rank in ranks.ranks])


def test_the_same_bytes_whatever_the_user_has_set() -> None:
    first = critical_difference(scored(6))
    with matplotlib.rc_context(
        {"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path", "svg.hashsalt": "other"}
    ):
        assert critical_difference(dict(reversed(scored(6).items()))) == first
        assert matplotlib.rcParams["font.size"] == 30
    assert critical_difference(scored(6)) == first
    assert critical_difference(scored(6, seed=1)) != first


def test_it_is_svg_with_text_and_without_a_date() -> None:
    written = critical_difference(scored(5))
    root = ET.fromstring(written)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.text or "" for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("group_dro (") for text in texts)
    assert "Average rank by accuracy (1 is best), 12 blocks of data and seed" in texts
    assert "dc:date" not in written
    assert "Matplotlib v" not in written


def test_names_are_no_markup() -> None:
    odd = {{"erm": "a<b&c", "lnl": "$x_1$"}.get(name, name): own for name, own in scored(5).items()}
    texts = {
        text.text or "" for text in ET.fromstring(critical_difference(odd)).iter("{http://www.w3.org/2000/svg}text")
    }
    assert any(text.startswith("a<b&c (") for text in texts)
    assert any(text.startswith("$x_1$ (") for text in texts)


def test_the_note_says_what_was_found() -> None:
    same = {name: {("x", seed): 0.5 for seed in range(5)} for name in NAMES[:4]}
    assert "No method is told apart: Friedman's p is not below 0.05" in to_svg(average_ranks(same))
    apart = scored(6, blocks=60, spread=0.1)
    del apart["lnl"]["data0", 0]
    written = critical_difference(apart)
    assert "Methods joined by a bar are not told apart (Nemenyi, 0.05)" in written
    assert "1 incomplete blocks left out" in written


@pytest.mark.parametrize(("methods", "blocks", "why"), [(2, 12, "2 methods"), (4, 4, "4 blocks")])
def test_too_few_give_the_reason_and_no_diagram(methods: int, blocks: int, why: str) -> None:
    with pytest.raises(ZooError, match=f"no critical difference: {why}"):
        critical_difference(scored(methods, blocks))
