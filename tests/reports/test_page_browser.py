"""The page in a browser: what a mouse and a keyboard do, what is seen, what is asked of the network (nothing)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import ODD_NAME, ODD_VALUE, make_comparison
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from debias_zoo.metrics import METRICS
from debias_zoo.reports.cells import NOTHING, percent
from debias_zoo.reports.page import to_html
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.store import Run, read_runs

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "cmnist-standard"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en"),
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip(f"{'chromium' if chromium is None else 'chromedriver'} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Run]]:
    return {"made": make_comparison(tmp_path_factory.mktemp("runs")), "committed": read_runs(RESULTS)[0]}


@pytest.fixture(scope="module")
def addresses(runs: dict[str, list[Run]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for name, of_page in runs.items():
        path = tmp_path_factory.mktemp("pages") / f"{name}.html"
        path.write_text(to_html(of_page, [], Asked()), encoding="utf-8")
        found[name] = path.as_uri()
    return found


class Opened:
    """A page, freshly opened in a window of a desktop's size."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser = browser
        self.resize(1280, 900)
        self.scheme("light")
        browser.get(address)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def script(self, text: str, *given: Any) -> Any:
        return self.browser.execute_script(text, *given)  # type: ignore[no-untyped-call]

    def find(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def column(self, key: str, table: int = 0) -> list[str]:
        """Texts of a column of the n-th table of results, of the lines that are shown."""
        return list(
            self.script(
                """const table = document.querySelectorAll("table.results")[arguments[0]];
                const heads = [...table.tHead.rows[0].cells];
                const place = heads.findIndex((head) => head.querySelector("button").dataset.sort === arguments[1]);
                return [...table.tBodies[0].rows].filter((row) => !row.hidden)
                  .map((row) => place ? row.cells[place] : row.querySelector("button.open"))
                  .map((found) => found.textContent);""",
                table,
                key,
            )
        )

    def head(self, key: str, table: int = 0) -> Any:
        return self.all("table.results")[table].find_element(By.CSS_SELECTOR, f'button[data-sort="{key}"]')

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def focused(self) -> Any:
        return self.browser.switch_to.active_element


@pytest.fixture
def made(browser: webdriver.Chrome, addresses: dict[str, str]) -> Opened:
    return Opened(browser, addresses["made"])


@pytest.fixture
def committed(browser: webdriver.Chrome, addresses: dict[str, str]) -> Opened:
    return Opened(browser, addresses["committed"])


def number(text: str) -> float | None:
    return None if text == "–" else float(text.split()[0].split("–")[0].rstrip("*"))


@pytest.mark.parametrize(
    ("key", "first"),
    [("accuracy", "descending"), ("gap", "ascending"), ("interval", "descending"), ("seconds", "ascending")],
)
def test_sorts_by_numbers_both_ways_with_the_missing_last(key: str, first: str, made: Opened) -> None:
    other = {"ascending": "descending", "descending": "ascending"}[first]
    Select(made.find("#rule")).select_by_value("val")  # which cannot be asked of every row
    for direction in (first, other):
        made.head(key).click()
        assert made.head(key).find_element(By.XPATH, "..").get_attribute("aria-sort") == direction
        values = [number(text) for text in made.column(key)]
        assert values[-1] is None
        known = [value for value in values if value is not None]
        absolute = [abs(value) for value in known] if key == "gap" and min(known) >= 0 else known
        assert absolute == sorted(known, reverse=direction == "descending")
    assert len(made.all("th[aria-sort]")) == 1


def test_sorts_by_the_published_numbers(committed: Opened) -> None:
    for reverse in (True, False):
        committed.head("published").click()
        values = [number(text) for text in committed.column("published")]
        assert values[-1] is None
        assert values[:-1] == sorted(values[:-1], reverse=reverse)  # type: ignore[type-var]


def test_sorts_by_texts_both_ways(made: Opened) -> None:
    for expected in (sorted([ODD_NAME, "erm", "lnl", "zeta"]), ["zeta", "lnl", "erm", ODD_NAME]):
        made.head("name").click()
        assert made.column("name") == expected
    for reverse in (False, True):
        made.head("level").click()
        levels = made.column("level")
        assert (levels[0] == "bias labels to train") == reverse
        assert len(levels) == 4
    assert made.column("name", table=1)[0] == ODD_NAME  # the other table stays as it was


def test_another_rule_is_sorted_again(made: Opened) -> None:
    made.head("accuracy").click()
    for rule in ("oracle", "val", "last"):
        Select(made.find("#rule")).select_by_value(rule)
        known = [value for value in map(number, made.column("accuracy")) if value is not None]
        assert known == sorted(known, reverse=True)


def test_filters_rows_and_blocks_and_says_how_many(made: Opened) -> None:
    made.find("#filter").send_keys("LNL 0.05")
    assert made.column("name", table=1) == ["lnl"]
    assert [block.is_displayed() for block in made.all("section.block")] == [False, True]
    assert made.find("#said").text == "1 of 8 rows"
    made.find("#filter").clear()
    made.find("#filter").send_keys("x", Keys.BACKSPACE)
    assert all(block.is_displayed() for block in made.all("section.block"))
    assert len(made.column("name")) == 4


@pytest.mark.parametrize("name", ["made", "committed"])
@pytest.mark.parametrize("rule", ["last", "val", "val-unbiased", "oracle"])
def test_a_rule_shows_the_numbers_of_the_report(
    name: str, rule: str, runs: dict[str, list[Run]], browser: webdriver.Chrome, addresses: dict[str, str]
) -> None:
    page = Opened(browser, addresses[name])
    Select(page.find("#rule")).select_by_value(rule)
    records = json.loads(render_report(make_report(runs[name], [], Asked(rules=(rule,))), "json"))
    variances = list(dict.fromkeys(record["params"]["variance"] for record in records))
    for record in records:
        table = variances.index(record["params"]["variance"])
        place = page.column("name", table).index(record["method"])
        for metric in METRICS:
            std = record[f"{metric}_std"]
            spread = "" if std is None else f" ± {percent(std)}"
            shown = NOTHING if record[metric] is None else percent(record[metric]) + spread
            assert page.column(metric, table)[place] == shown, (record["method"], metric)
        assert page.column("level", table)[place] == record["supervision"]
    assert page.find("#rule-about").text.endswith("labels")


def test_a_split_shows_its_numbers_and_says_so(made: Opened, runs: dict[str, list[Run]]) -> None:
    before = made.column("accuracy")
    Select(made.find("#split")).select_by_value("val")
    rows = make_report(runs["made"], [], Asked(split="val")).table.blocks[0].rows
    shown = dict(zip(made.column("name"), made.column("accuracy"), strict=True))
    for row in rows:
        value = row.values["accuracy"]
        assert value is not None
        assert shown[row.method].split()[0] == percent(value.mean)
    assert "Split: val" in made.find("#split-about").text
    Select(made.find("#split")).select_by_value("test")
    assert made.column("accuracy") == before
    assert made.find("#split-about").text == ""


def test_columns_come_and_go(made: Opened) -> None:
    for box, shown in (("ece", True), ("accuracy", False)):
        made.find(f'input[value="{box}"]').click()
        assert made.head(box).is_displayed() == shown
        assert {cell.is_displayed() for cell in made.all(f'td[data-key="{box}"]')} == {shown}
    made.find('input[value="worst_group"]').click()
    assert not made.head("interval").is_displayed()


def test_a_row_opens_with_the_mouse_and_says_where_it_came_from(made: Opened, runs: dict[str, list[Run]]) -> None:
    (button,) = [found for found in made.all("section.block:first-of-type button.open") if found.text == ODD_NAME][:1]
    button.click()
    dialog = made.find("#detail")
    assert dialog.is_displayed()
    own = [run for run in runs["made"] if run.result.trial.method == ODD_NAME][:3]
    text = dialog.text
    assert own[0].result.trial.command((0, 1, 2)) in text
    assert json.dumps(ODD_VALUE) in text
    for run in own:
        value = run.result.metrics["test"]["accuracy"]
        assert value is not None
        for said in (run.result.identity, f"c0ffee{run.result.trial.seed}", percent(value), f"note of {ODD_NAME}"):
            assert said in text
    assert made.browser.title != "owned"
    dialog.find_element(By.CSS_SELECTOR, "form button").click()
    assert not dialog.is_displayed()


def test_a_row_opens_with_the_keyboard_alone(made: Opened) -> None:
    made.find("#filter").click()
    for _ in range(60):
        made.press(Keys.TAB)
        if "open" in (made.focused().get_attribute("class") or "").split():
            break
    button = made.focused()
    assert button.text == ODD_NAME
    assert button.accessible_name == f"{ODD_NAME}: details"
    outline = made.script("const s = getComputedStyle(arguments[0]); return [s.outlineStyle, s.outlineWidth]", button)
    assert outline == ["solid", "3px"]
    made.press(Keys.ENTER)
    dialog = made.find("#detail")
    assert dialog.is_displayed()
    assert dialog.accessible_name.startswith(f"{ODD_NAME} on cmnist")
    for _ in range(3):
        made.press(Keys.TAB)
        assert made.script("return arguments[0].contains(document.activeElement)", dialog)
    made.press(Keys.ESCAPE)
    assert not dialog.is_displayed()
    assert made.focused() == button


def test_a_command_is_copied(made: Opened) -> None:
    made.find("button.open").click()
    made.script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    made.find("#detail .copy").click()
    assert made.script("return window.copied") == made.find("#detail-command").text
    assert made.find("#detail .copy").text == "Copied"


CONTRASTS = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const luminance = (color) => {
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = (element) => {
  for (let found = element; found; found = found.parentElement) {
    const color = getComputedStyle(found).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color;
  }
};
const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
  && !element.closest("svg") && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
return texts.map((element) => {
  const pair = [luminance(getComputedStyle(element).color), luminance(paper(element))].sort((a, b) => a - b);
  return [(pair[1] + 0.05) / (pair[0] + 0.05), element.outerHTML.slice(0, 80)];
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast(scheme: str, made: Opened) -> None:
    """WCAG 2.2 AA, 1.4.3: 4.5 for text."""
    made.scheme(scheme)
    made.find("button.open").click()
    found = made.script(CONTRASTS)
    assert len(found) > 200
    assert [text for contrast, text in found if contrast < 4.5] == []


def test_light_and_dark_are_switched(made: Opened) -> None:
    def colors() -> list[str]:
        look = "return ['body', 'figure svg'].map((s) => getComputedStyle(document.querySelector(s)).color)"
        return list(made.script(look))

    light = colors()
    made.find("#theme").click()
    dark = colors()
    assert made.find("#theme").get_attribute("aria-pressed") == "true"
    assert all(before != after for before, after in zip(light, dark, strict=True))
    made.find("#theme").click()
    assert colors() == light
    made.scheme("dark")
    assert colors() == light  # what was chosen stays


def test_on_a_phone_only_boxes_scroll(committed: Opened) -> None:
    committed.resize(390, 844)
    assert committed.script("return [document.documentElement.scrollWidth, document.body.scrollWidth]") == [390, 390]
    boxes = committed.script(
        "return [...document.querySelectorAll('table, svg, img')].map((found) => found.closest('.scroll') !== null)"
    )
    assert boxes
    assert all(boxes)
    committed.find("button.open").click()
    wide = "const found = document.querySelector('#detail > div'); return [found.scrollWidth, found.clientWidth]"
    shown, room = committed.script(wide)
    assert shown <= room <= 390


def test_without_scripts_the_numbers_stand(browser: webdriver.Chrome, addresses: dict[str, str]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page = Opened(browser, addresses["committed"])
        assert "69.41" in page.find("table.results").text
        assert not page.find("#controls").is_displayed()
        assert not page.find("#theme").is_displayed()
        assert "Without JavaScript" in page.find("noscript").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.parametrize("name", ["made", "committed"])
def test_it_says_nothing_and_asks_nothing(name: str, browser: webdriver.Chrome, addresses: dict[str, str]) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what earlier pages said
    page = Opened(browser, addresses[name])
    page.head("accuracy").click()
    page.find("button.open").click()
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert addresses[name] in asked
    assert [url for url in asked if url != addresses[name] and not url.startswith("data:")] == []
