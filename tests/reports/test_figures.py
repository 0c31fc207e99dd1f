"""The figures: every name is there and none covers another; colours are seen on white and on black; SVG for a page."""

from __future__ import annotations

import re
from itertools import combinations
from xml.etree import ElementTree

import numpy as np
import pytest
from made_results import SEES_BIAS, make_result, make_seeds
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from debias_zoo.reports.drawing import MARKERS, SHADES, colors, style, to_svg, wrapped
from debias_zoo.reports.figures import front_of, group_maps, learning_curves, pareto, robustness
from debias_zoo.reports.rows import Table
from debias_zoo.reports.table import build_table

ODD = "a_b & <c> $x$"


def crowd(count: int) -> Table:
    """Methods of about the same accuracy and seconds, some of them with long names."""
    random = np.random.default_rng(3)
    names = [f"method_{place}" if place % 5 else f"a_long_method_name_{place}" for place in range(count)]
    return build_table(
        [
            make_result(name, 0, float(random.normal(0.5, 0.03)), seconds=float(random.uniform(100, 130)))
            for name in names
        ]
    )


def shared(one: Bbox, other: Bbox) -> float:
    both = Bbox.intersection(one, other)
    return 0.0 if both is None else both.width * both.height


@pytest.mark.parametrize("count", [1, 2, 12, 27])
def test_no_name_covers_another_or_a_point_or_leaves_the_axes(count: int) -> None:
    with style():
        drawn = pareto({"": crowd(count).rows}, "accuracy")
        renderer = FigureCanvasAgg(drawn).get_renderer()
        drawn.draw(renderer)
        (panel,) = drawn.axes
        words = {text.get_text(): Text.get_window_extent(text, renderer) for text in panel.texts}  # without its line
    assert len(words) == count
    frame = panel.get_window_extent()
    for (name, box), (other, second) in combinations(words.items(), 2):
        assert shared(box, second) < 2, f"{name} covers {other}"
    points = [place for found in panel.collections for place in panel.transData.transform(found.get_offsets())]
    for name, box in words.items():
        assert frame.x0 - 2 <= box.x0 <= box.x1 <= frame.x1 + 2, name
        assert not [place for place in points if box.contains(*place)], name


def test_each_data_set_has_its_own_front() -> None:
    blocks = {"cheap": crowd(3).rows, "dear, with x=1": crowd(5).rows, "nothing": []}
    with style():
        drawn = pareto(blocks, "accuracy")
    assert [panel.get_title() for panel in drawn.axes] == ["cheap", "dear, with x=1"]
    for panel, rows in zip(drawn.axes, blocks.values(), strict=False):
        values = [(row.seconds, row.values["accuracy"].mean) for row in rows]  # type: ignore[union-attr]
        assert {text.get_text() for text in panel.texts} == {row.name for row in rows}
        (line,) = panel.lines
        assert list(line.get_xdata()) == [x for x, _ in front_of(values)]  # type: ignore[arg-type]


def test_of_many_points_only_those_on_the_line_are_named() -> None:
    rows = crowd(60).rows
    with style():
        drawn = pareto({"": rows}, "accuracy")
    values = [(row.seconds, row.values["accuracy"].mean, row.name) for row in rows]  # type: ignore[union-attr]
    front = front_of([(x, y) for x, y, _ in values])  # type: ignore[misc]
    assert {text.get_text() for text in drawn.axes[0].texts} == {name for x, y, name in values if (x, y) in front}


@pytest.mark.parametrize("ends", [(100, 101), (90, 130), (52, 360), (1, 9000)])
def test_marks_of_seconds_do_not_run_into_each_other(ends: tuple[float, float]) -> None:
    rows = build_table([make_result(f"m{place}", 0, 0.5, seconds=end) for place, end in enumerate(ends)]).rows
    with style():
        drawn = pareto({"": rows}, "accuracy")
        renderer = FigureCanvasAgg(drawn).get_renderer()
        drawn.draw(renderer)
    low, high = drawn.axes[0].get_xlim()
    marks = [mark for mark in drawn.axes[0].get_xticklabels() if low <= mark.get_position()[0] <= high]
    assert len(marks) >= 3
    for one, other in combinations([mark.get_window_extent(renderer) for mark in marks], 2):
        assert shared(one, other) == 0


def luminance(color: object) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]  # type: ignore[arg-type]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("count", [len(SHADES), 27])
@pytest.mark.parametrize("paper", ["#ffffff", "#14171b"])
def test_colours_are_seen_on_both_papers(count: int, paper: str) -> None:
    """WCAG 2.2, 1.4.11: a contrast of 3 for graphical objects."""
    found = colors([str(place) for place in range(count)])
    assert len({*found.values()}) == count
    for shade in found.values():
        dark, light = sorted((luminance(shade), luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) >= 3


def test_lines_of_robustness_differ_in_colour_and_marker_and_keep_odd_names() -> None:
    results = [
        result
        for method in ("erm", "gray", ODD)
        for variance in (0.02, 0.03, 0.05)
        for result in make_seeds(method, [0.3, 0.4], params={"variance": variance})
    ]
    with style():
        drawn = robustness(build_table(results), "variance", "accuracy")
        text = to_svg(drawn)
    lines = [container.lines[0] for container in drawn.axes[0].containers]
    assert [line.get_marker() for line in lines] == list(MARKERS[:3])
    assert len({line.get_color() for line in lines}) == 3
    assert "a_b &amp; &lt;c&gt; $x$" in text
    assert [mark.get_text() for mark in drawn.axes[0].get_xticklabels()] == ["0.02", "0.03", "0.05"]


def test_points_differ_by_supervision() -> None:
    rows = build_table([make_result("erm"), make_result("lnl", supervision=SEES_BIAS)]).rows
    with style():
        drawn = pareto({"": rows}, "accuracy")
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["no bias labels", "bias labels to train"]


def test_panels_have_whole_names_in_lines() -> None:
    long = "lnl (backbone=efficientnet_lite0, lnl.train.epochs=2)"
    curve = (np.full((1, 5), 0.9), np.full((1, 5), 0.1))
    maps = {long: np.array([[0.5, np.nan], [0.1, 0.9]]), "erm": np.eye(2)}
    with style():
        curves = learning_curves({long: curve, "erm": curve})
        groups = group_maps(maps, ["cat", "dog"], ["a rather long bias", "another long one"], [[0], [1]])
    for drawn in (curves, groups):
        title = drawn.axes[0].get_title()
        assert max(map(len, title.split("\n"))) <= 24
        assert title.replace("\n", "").replace(" ", "") == long.replace(" ", "")
    assert {mark.get_rotation() for mark in groups.axes[0].get_xticklabels()} == {90}


def test_wrapped_says_where_it_cuts() -> None:
    assert wrapped("erm", 5) == "erm"
    assert wrapped("one two three", 5) == "one\ntwo\nthree"
    assert wrapped("one two three four five", 5, 3) == "one\ntwo\nthree..."


def test_svgs_of_a_page_share_no_id_and_have_a_name() -> None:
    rows = crowd(3).rows
    with style():
        texts = [to_svg(pareto({"": rows}, metric), f'a "{metric}" & more') for metric in ("accuracy", "unbiased")]
        again = to_svg(pareto({"": rows}, "accuracy"), 'a "accuracy" & more')
    assert again == texts[0]
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in texts]
    assert not ids[0] & ids[1]
    for text, own in zip(texts, ids, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', text)) == own
        root = ElementTree.fromstring(text)
        assert root.get("role") == "img"
        assert root.get("aria-label", "").startswith('a "')
        assert float(root.get("width", "0")) == pytest.approx(6.6 * 96, abs=1)
        assert "currentColor" in text
        assert "#010203" not in text


def test_a_file_has_no_page_around_it() -> None:
    with style():
        text = to_svg(pareto({"": crowd(2).rows}, "accuracy"))
    assert text.startswith("<?xml")
    assert "currentColor" not in text
