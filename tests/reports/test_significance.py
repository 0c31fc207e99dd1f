"""The sheet of paired differences: its sections, its words and its numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from debias_zoo.errors import ZooError
from debias_zoo.reports.bootstrap import Interval
from debias_zoo.reports.sheets import Cell, Section, Sheet
from debias_zoo.reports.significance import points, significance_sheet
from debias_zoo.reports.statistics import Scores, holm, paired_difference


def scored(
    seeds: int = 3, data: tuple[str, ...] = ("cmnist", "bar"), seed: int = 0
) -> dict[str, dict[tuple[str, int], float]]:
    random = np.random.default_rng(seed)
    level = {"gray": 0.5, "erm": 0.6, "lnl": 0.7}
    return {
        method: {(name, place): float(own + random.normal(0, 0.02)) for name in data for place in range(seeds)}
        for method, own in level.items()
    }


def cells(section: Section) -> dict[str, dict[str, Cell]]:
    keys = ("method", "pairs", "difference", "interval", "p", "p_holm", "reason")
    return {row[0].text: dict(zip(keys, row, strict=True)) for row in section.rows}


def sections(sheet: Sheet) -> dict[str, dict[str, dict[str, Cell]]]:
    return {section.heading: cells(section) for section in sheet.sections}


def test_a_section_for_each_data_and_one_over_all() -> None:
    sheet = significance_sheet(scored())
    assert [column.key for column in sheet.columns] == [
        "method", "pairs", "difference", "interval", "p", "p_holm", "reason",
    ]  # fmt: skip
    found = sections(sheet)
    assert list(found) == ["cmnist", "bar", "all data"]
    assert all(list(rows) == ["gray", "lnl"] for rows in found.values())  # compared with erm, in the order given
    assert [found[name]["lnl"]["pairs"].text for name in found] == ["3", "3", "6"]
    assert sheet.title == "Differences from erm in accuracy, in percentage points"
    assert sheet.problems == ()


def test_numbers_are_those_of_the_tests() -> None:
    scores = scored(seeds=8)
    found = sections(significance_sheet(scores))
    raw = []
    for name, rows in found.items():
        part: Scores = {m: {k: v for k, v in own.items() if name in (k[0], "all data")} for m, own in scores.items()}
        for method, row in rows.items():
            expected = paired_difference(part, method, "erm")
            raw.append((row, expected))
            assert row["difference"].value == expected.mean
            assert row["interval"].value == [expected.low, expected.high]
            assert row["p"].value == expected.p
            assert row["reason"].text == ""
    corrected = holm([expected.p for _, expected in raw if expected.p is not None])
    assert [row["p_holm"].value for row, _ in raw] == pytest.approx(corrected)
    assert len(corrected) == 6  # all tests of the sheet are one family


def test_three_seeds_give_the_reason_in_place_of_a_p() -> None:
    row = sections(significance_sheet(scored()))["cmnist"]["lnl"]
    assert (row["p"].text, row["p"].value, row["p_holm"].text) == ("–", None, "–")
    assert row["reason"].text.startswith(
        "3 pairs: with fewer than 6 the two-sided exact Wilcoxon test cannot reach p < .05"
    )
    assert row["interval"].text.startswith("[+")


def test_how_numbers_are_written() -> None:
    assert [points(value) for value in (0.0125, -0.5, -0.00001, 0.0, None)] == [
        "+1.25",
        "-50.00",
        "+0.00",
        "+0.00",
        "–",
    ]
    strong = significance_sheet(scored(seeds=20, data=("cmnist",)))
    assert sections(strong)["cmnist"]["lnl"]["p"].text == "<0.0001"
    six = significance_sheet(scored(seeds=6, data=("cmnist",)))
    assert sections(six)["cmnist"]["lnl"]["p"].text == "0.0312"


def test_the_notes_say_which_tests_and_their_limits() -> None:
    notes = " ".join(significance_sheet(scored()).notes)
    assert "Method minus erm" in notes
    assert "Wilcoxon signed-rank test (Wilcoxon 1945)" in notes
    assert "corrected for all 2 tests on this sheet (Holm 1979)" in notes
    assert "75 % of cases for 3 pairs" in notes
    assert "No method could reach p < .05 after Holm here: the smallest p of 6 pairs is 0.03125" in notes
    assert "Seeds of one data set share its images" in notes
    many = " ".join(significance_sheet(scored(seeds=60, data=("cmnist",))).notes)
    assert "normal approximation" in many
    assert "No method could reach" not in many
    assert "all data" not in many
    few = " ".join(significance_sheet(scored(data=("cmnist",))).notes)
    assert "Wilcoxon 1945" not in few


def test_the_reference() -> None:
    scores = scored()
    assert list(sections(significance_sheet(scores, "lnl"))["bar"]) == ["gray", "erm"]
    del scores["erm"]
    assert significance_sheet(scores).title.startswith("Differences from gray")
    with pytest.raises(ZooError, match="unknown reference method 'erm'"):
        significance_sheet(scores, "erm")
    for few in ({}, {"lnl": scores["lnl"]}):
        with pytest.raises(ZooError, match="a comparison needs two methods"):
            significance_sheet(few)


def test_what_has_nothing_to_be_compared_with_is_told() -> None:
    scores = scored()
    scores["erm"] = {pair: value for pair, value in scores["erm"].items() if pair[0] != "bar"}
    scores["gray"] = {pair: value for pair, value in scores["gray"].items() if pair[0] != "cmnist"}
    sheet = significance_sheet(scores)
    found = sections(sheet)
    assert list(found) == ["cmnist", "all data"]
    assert list(found["cmnist"]) == ["lnl"]
    assert found["all data"]["gray"]["reason"].text == "no pair: the two share no data with a common seed"
    assert found["all data"]["gray"]["difference"].text == "–"
    assert sheet.problems == ("left out: bar: no result of 'erm', with which methods are compared",)


def test_a_gap_says_that_less_is_better() -> None:
    sheet = significance_sheet(scored(), metric="gap")
    assert "below zero is better" in sheet.notes[0]
    assert sheet.title == "Differences from erm in gap, in percentage points"


def test_values_are_json_and_the_sheet_is_always_the_same() -> None:
    sheet = significance_sheet(scored())
    json.dumps([[cell.value for cell in row] for section in sheet.sections for row in section.rows], allow_nan=False)
    assert significance_sheet(scored()) == sheet


def test_intervals_over_images_stand_in_the_place_of_those_over_pairs() -> None:
    scores = scored(seeds=2)
    given = {("cmnist", "lnl"): Interval(0.1, 0.05, 0.15, 2, 1000)}
    sheet = significance_sheet(scores, intervals=given)
    found = sections(sheet)
    assert found["cmnist"]["lnl"]["interval"].value == [0.05, 0.15]
    assert (
        found["cmnist"]["lnl"]["difference"].value
        == paired_difference(
            {m: {k: v for k, v in own.items() if k[0] == "cmnist"} for m, own in scores.items()}, "lnl", "erm"
        ).mean
    )
    assert found["bar"]["lnl"]["interval"].value is None, "2 pairs are too few, and nothing is known of the images"
    assert any("over seeds and test images" in note for note in sheet.notes)
    assert any("Interval under 'all data'" in note for note in sheet.notes)


def test_what_cannot_be_taken_together_is_not() -> None:
    sheet = significance_sheet(scored(), separate="Not taken together.", conditions=("Protocol: paper.",))
    assert list(sections(sheet)) == ["cmnist", "bar"]
    assert sheet.notes[0] == "Protocol: paper."
    assert sheet.notes[-1] == "Not taken together."
