"""The generated pages: one for each method and data set, whole, the same again, with the drawings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import catalogue
import pytest
import reading
from catalogue_methods import recipe_command
from catalogue_numbers import answered
from house import PARTS, House, house, part_of, unsorted
from house_drawing import drawing
from markup import plain, prose, table
from pages import anchors, commands, links, parse

from debias_zoo.dataset import Card
from debias_zoo.listing import details
from debias_zoo.registry import entries, load_method
from debias_zoo.reports.published import published
from debias_zoo.testing import CHECKS

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return dict(catalogue.pages())


def ours(kind: str) -> list[str]:
    return [name for name, found in entries(kind).items() if found.origin == "debias-zoo"]


def test_every_method_and_data_set_has_its_page(made: dict[str, str]) -> None:
    for kind in ("method", "dataset"):
        pages = {Path(name).stem for name in made if name.startswith(f"{kind}s/")}
        assert pages == set(ours(kind))
        index = made[f"{kind}s.md"]
        for name in ours(kind):
            assert len(re.findall(rf"\| \[{name}\]\({kind}s/{name}\.md\) \|", index)) == 1
            assert f"\n{kind}s/{name}\n" in index


@pytest.mark.parametrize("name", ours("method"))
def test_a_methods_page_says_all_there_is(name: str, made: dict[str, str]) -> None:
    page, found, cls = made[f"methods/{name}.md"], details(name), load_method(name)
    assert f"- {found['supervision']}" in page
    for setting in found["settings"]:
        assert f"| `{setting['name']}` |" in page
    for recipe in found["recipes"]:
        assert f"### {recipe['protocol']} on {recipe['dataset']}\n" in page
        assert f"$ {recipe_command(name, recipe)}\n" in page
        for deviation in recipe.get("deviations", []):
            assert f"- {plain(deviation)}\n" in page
    for line in cls.__doc__.splitlines() if cls.__doc__ else []:
        if re.match(r" {8}\S", line):
            assert line.strip() in page, "an equation is shown as it stands"
    for check in cls.expected_failed:
        assert f"- `{check}`: " in page
    assert page.count("```{literalinclude}") == 1


@pytest.mark.parametrize("name", ours("dataset"))
def test_a_data_sets_page_says_all_there_is(name: str, made: dict[str, str]) -> None:
    page, found, card = made[f"datasets/{name}.md"], details(name), catalogue.card_of(name)
    for parameter in found["parameters"]:
        assert f"| `{parameter['name']}` |" in page
    assert (card is None) == (name in ("folder", "arrays"))
    if card is not None:
        assert says_the_card(page, card)


def says_the_card(page: str, card: Card) -> bool:
    splits = ", ".join(f"`{split}`" for split in card.eval_splits)
    words = [splits, f"`{card.backbone}`", *(f"| {plain(label)} |" for label in card.classes)]
    words += [f"`{card.folder}/` below" if card.folder else "come with the package"]
    return all(word in page for word in words)


def test_every_published_number_stands_on_the_pages_of_its_method_and_data(made: dict[str, str]) -> None:
    for kind in ("method", "dataset"):
        for name in ours(kind):
            numbers = [number for number in published() if getattr(number, kind) == name]
            answers = [answered().get(published().index(number), [None]) for number in numbers]
            section = re.search(r"## Published numbers and ours\n(.*?)^## ", made[f"{kind}s/{name}.md"], re.S | re.M)
            rows = len(re.findall(r"^\| (?!Method|Data)", section[1], re.M)) if section else 0
            assert rows == sum(map(len, answers))


def test_numbers_of_ours_are_those_of_the_committed_sheets(made: dict[str, str]) -> None:
    assert (
        "| 81.85 | 53.52 ± 12.08 ([standard, 3 seeds](../../results/cmnist-standard/ledger.md)) |"
        in (made["methods/lnl.md"])
    )
    assert "| [denetdm](../methods/denetdm.md) |" in made["datasets/cmnist-lff.md"]
    assert answered()


def test_links_and_commands_of_generated_pages_are_right(made: dict[str, str]) -> None:
    for name, text in made.items():
        if not name.endswith(".md"):
            continue
        for words in commands(text):
            parse(words)
        for target in links(text):
            file, _, anchor = target.partition("#")
            path = ((catalogue.FOLDER / name).parent / file).resolve()
            known = (
                made.get(path.relative_to(catalogue.FOLDER).as_posix()) if catalogue.FOLDER in path.parents else None
            )
            assert known is not None or path.exists(), f"{name} links to {target}"
            if anchor:
                assert anchor in anchors(known or path.read_text()), f"{name} links to {target}"


def test_the_contracts_checks_are_all_explained(made: dict[str, str]) -> None:
    assert re.findall(r"^\| `(\w+)` \|", made["checks.md"], re.M) == list(CHECKS)


def test_writing_again_changes_nothing_and_old_pages_go(tmp_path: Path, made: dict[str, str]) -> None:
    catalogue.write(tmp_path)
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_text() for name, path in files.items()} == made
    times = {name: path.stat().st_mtime_ns for name, path in files.items()}
    (tmp_path / "methods" / "gone.md").write_text("# gone\n")
    catalogue.write(tmp_path)
    assert {name: path.stat().st_mtime_ns for name, path in files.items()} == times
    assert not (tmp_path / "methods" / "gone.md").exists()


def test_markdown_shows_text_as_it_is() -> None:
    assert plain("a_b *c* <d> [e] `f_g` ``h*``") == r"a\_b \*c\* \<d> \[e\] `f_g` ``h*``"
    assert prose("One.\n\nTwo:\n\n    a = b\n      c\n\n    d\nEnd.") == (
        "One.\n\nTwo:\n\n```text\na = b\n  c\n```\n\n```text\nd\n```\n\nEnd.\n"
    )
    assert table(["a"], [["x | y"]]) == "| a |\n|---|\n| x \\| y |\n"
    assert table(["a"], []) == ""


def test_every_file_of_the_core_is_in_a_part_and_no_way_leads_back() -> None:
    found = house()
    assert sum(map(len, found.files.values())) == len(found.about)
    assert all(found.level(part) >= 0 for part in found.arrows)
    assert not unsorted(), "name them in PARTS of docs/house.py"
    assert part_of("nowhere") == ""
    circle = House({}, {"a": frozenset("b"), "b": frozenset("a")}, {})
    with pytest.raises(ValueError, match="what 'a' imports imports 'a'"):
        circle.level("a")


def test_the_drawing_shows_every_file_and_leaves_out_what_follows() -> None:
    root = ET.fromstring(drawing().partition("\n")[2].rpartition("</div>")[0])
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    shown = " ".join(texts)
    for part in PARTS:
        if house().files[part]:
            assert part in shown
    for name in house().about:
        assert f"{name.split('/')[0]}{'/' if '/' in name else ''}" in shown
    chain = House({}, {"a": frozenset("bc"), "b": frozenset("c"), "c": frozenset()}, {})
    assert chain.shown() == [("a", "b"), ("b", "c")]
    assert len(list(root.iter(f"{SVG}path"))) == len(house().shown()) + 1  # and the arrow's head


def test_boxes_of_the_drawing_lie_apart_and_within_it() -> None:
    root = ET.fromstring(drawing().partition("\n")[2].rpartition("</div>")[0])
    boxes = [[float(node.get(key, "")) for key in ("x", "y", "width", "height")] for node in root.iter(f"{SVG}rect")]
    _, _, width, height = map(float, root.get("viewBox", "").split())
    for k, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        for x2, y2, w2, h2 in boxes[:k]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_the_numbered_table_is_the_committed_one(made: dict[str, str]) -> None:
    root = ET.fromstring(made["reading.svg"].partition("\n")[2].rpartition("</div>")[0])
    texts = ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]
    for cell in ("30.14 ± 1.36", "lnl_adaptive‡", "0.0–4.1", "Protocol: standard."):
        assert cell in texts
    discs = [int(text) for text in texts if text.isdigit() and int(text) <= 15]
    assert sorted(discs) == list(range(1, 16))
    assert len(re.findall(r"^\d+\. ", made["reading.md"], re.M)) == 15
    assert set(reading.COLUMNS) == set(reading.sheet().header)
    for start in reading.CAPTION:
        assert any(sentence.startswith(start) for sentence in reading.sheet().sentences)
