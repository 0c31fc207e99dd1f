"""The search, on made data with trials run in this process; once with workers that are killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from debias_zoo import driver, registry, tune_driver
from debias_zoo.arrays import from_arrays
from debias_zoo.cli import cli
from debias_zoo.errors import ZooError
from debias_zoo.executor_local import LocalExecutor
from debias_zoo.executors import Event, Setup
from debias_zoo.method import Method, setting
from debias_zoo.methods.erm import ERM
from debias_zoo.methods.spectral_decoupling import SpectralDecoupling
from debias_zoo.runner import run_trial
from debias_zoo.search_space import search_space
from debias_zoo.store import read_results
from debias_zoo.trial import Trial

pytest.importorskip("optuna")
ROOT = Path(__file__).resolve().parent.parent


class Fragile(ERM):
    """ERM whose loss is what its settings say: NaN for one of them."""

    name = "fragile"
    training_search = {"train.lr": (1e-3, 1e-1, "log")}

    class Config(Method.Config):
        """Settings."""

        scale: float = setting(1.0, "of the loss", source="ours", search=(0.5, 2.0, "linear"))
        layers: int = setting(2, "of nothing", source="ours", search=(1, 8, "log"))
        breaks: bool = setting(False, "makes the loss NaN", source="ours", search=[False, True])
        free: float = setting(1.0, "not searched", source="ours")

    def forward(self, loss: str, batch: Any, clock: Any) -> Any:
        found = super().forward(loss, batch, clock)
        return {"loss": found["loss"] * (float("nan") if self.config.breaks else self.config.scale)}


class Here(LocalExecutor):
    """An executor that runs trials in this process; ``dies_at``: of which trial, counted from 0, Ctrl-C is pressed."""

    name, remote = "here", False
    ran: list[Trial] = []
    dies_at: int | None = None

    def __init__(self, setup: Setup) -> None:
        self.setup = setup

    def run(self, trials: Sequence[Trial], keep: bool = False) -> Iterator[Event]:
        for trial in trials:
            if len(Here.ran) == Here.dies_at:
                raise KeyboardInterrupt
            Here.ran.append(trial)
            try:
                run_trial(trial, self.setup.out)
            except ZooError as error:
                yield Event(trial, "failed", {"error": str(error)})
            else:
                yield Event(trial, "done")

    def close(self) -> None:
        """Nothing is left."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images of 8 x 8 whose colour is the bias and whose brightness is the label."""
    path = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(0)
    labels = np.arange(240) % 2
    biases = np.where(random.random(240) < 0.8, labels, 1 - labels)
    images = random.integers(0, 120, (240, 8, 8, 3)).astype(np.uint8)
    images[..., 0] += (60 * biases[:, None, None]).astype(np.uint8)
    images[..., 1] += (30 * labels[:, None, None]).astype(np.uint8)
    splits = np.repeat(["train", "val", "test"], 80)
    from_arrays(images, labels, biases, splits=splits).save(path / "made.npz")
    from_arrays(images, labels, splits=splits).save(path / "unlabelled.npz")
    from_arrays(images, labels, biases, splits=np.repeat(["train", "test"], 120)).save(path / "without.npz")
    return path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """Trials run in this process, and the fragile method is registered."""
    load = registry._load
    monkeypatch.setattr(registry, "_load", lambda kind, name: Fragile if name == "fragile" else load(kind, name))
    monkeypatch.setattr(tune_driver, "LocalExecutor", Here)
    monkeypatch.setattr(driver, "pick_executor", lambda *given: Here)
    for module in (driver, tune_driver):
        monkeypatch.setattr(module, "expected_seconds", lambda trials, *rest: {t.identity: 1.0 for t in trials})
    Here.ran, Here.dies_at = [], None
    return Here


def options(made: Path, out: Path, file: str = "made.npz") -> list[str]:
    data = ["--dataset", f"arrays:file={made / file}", "--backbone", "mlp", "--protocol", "quick"]
    return [*data, "--device", "cpu", "--precision", "fp32", "--jobs", "1", "--out", str(out)]


def invoke(*command: str) -> Result:
    return CliRunner().invoke(cli, list(command), env={"COLUMNS": "200"})


def tune(made: Path, out: Path, *more: str, method: str = "fragile", file: str = "made.npz") -> Result:
    return invoke("tune", "--method", method, *options(made, out, file), *more)


def recipe_of(out: Path, method: str = "fragile") -> tuple[Path, dict[str, Any]]:
    (path,) = (out / "tune").glob(f"arrays-{method}-*.yaml")
    return path, yaml.safe_load(path.read_text())


def studied(out: Path) -> list[tuple[dict[str, Any], float | None]]:
    """Parameters and score of every trial of the only study in the only journal."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    (path,) = (out / "tune").glob("*.journal")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    (study,) = storage.get_all_studies()
    return [(trial.params, trial.value) for trial in storage.get_all_trials(study._study_id)]


def test_a_study_is_repeated_bit_for_bit_and_goes_on_after_an_interruption(
    made: Path, tmp_path: Path, here: type[Here]
) -> None:
    asked = ["--trials", "5", "--select", "val", "--seeds", "2"]
    method = "spectral_decoupling"
    first, second = tmp_path / "first", tmp_path / "second"
    said = tune(made, first, *asked, method=method)
    assert said.exit_code == 0, said.output
    here.ran, here.dies_at = [], 5
    cut = tune(made, second, *asked, method=method)
    assert (cut.exit_code, "interrupted" in cut.output) == (130, True)
    with next((second / "tune").glob("*.journal")).open("ab") as journal:
        journal.write(b'{"half a li')
    here.dies_at = None
    assert tune(made, second, *asked, method=method).exit_code == 0
    assert len({trial.identity for trial in here.ran}) == len(here.ran) == 10, "a trial was run twice"
    assert studied(first) == studied(second)
    assert recipe_of(first, method)[0].read_bytes() == recipe_of(second, method)[0].read_bytes()
    assert len({str(params) for params, _ in studied(first)}) == 5
    here.ran = []
    again = tune(made, second, *asked, method=method)
    assert (again.exit_code, here.ran, "best" in again.output) == (0, [], True)
    assert tune(made, second, "--trials", "6", *asked[2:], method=method).exit_code == 0
    assert (len(here.ran), studied(second)[:5]) == (2, studied(first))
    kept = recipe_of(second, method)[0].read_text()
    assert tune(made, second, "--trials", "6", *asked[2:], "--jobs", "4", method=method).exit_code == 0
    assert recipe_of(second, method)[0].read_text() == kept, "its command is not that of the study"
    other = tmp_path / "other"
    assert tune(made, other, *asked, "--search-seed", "1", method=method).exit_code == 0
    assert studied(other)[1] != studied(first)[1]


@pytest.mark.usefixtures("here")
def test_failed_trials_count_and_the_own_settings_are_the_first(made: Path, tmp_path: Path) -> None:
    ended = tune(made, tmp_path, "--trials", "7", "--select", "val-worst-group")
    assert ended.exit_code == 0, ended.output
    trials = studied(tmp_path)
    broken = [params["breaks"] == "true" for params, _ in trials]
    assert any(broken[1:]), "the search never broke it: choose another --search-seed"
    assert [value is None for _, value in trials] == broken
    assert "a loss became NaN" in ended.output
    assert trials[0][0] == {"scale": 1.0, "layers": 2, "breaks": "false", "train.lr": 0.01}
    assert {type(params["layers"]) for params, _ in trials} == {int}
    _, recipe = recipe_of(tmp_path)
    scores = [value for _, value in trials if value is not None]
    assert recipe["score"] == max(scores) >= recipe["own_score"] == trials[0][1]
    assert (recipe["failed"], recipe["trials"], recipe["tuned_on"]) == (sum(broken), 7, "val_unbiased")
    own = [r for r in read_results(tmp_path)[0] if r.trial.supervision.tuned_on is None]
    assert len(own) == 1, "trial 0 is the plain run, the others were proposed by labels"


@pytest.mark.usefixtures("here")
def test_every_method_gets_the_same_budget(made: Path, tmp_path: Path) -> None:
    ended = tune(made, tmp_path, "--trials", "2", "--select", "ac", method="fragile,spectral_decoupling")
    assert ended.exit_code == 0, ended.output
    assert [recipe_of(tmp_path, name)[1]["trials"] for name in ("fragile", "spectral_decoupling")] == [2, 2]


def test_run_takes_the_recipe_and_its_table_says_so(made: Path, tmp_path: Path, here: type[Here]) -> None:
    assert tune(made, tmp_path / "runs", "--trials", "4", "--select", "val").exit_code == 0
    path, recipe = recipe_of(tmp_path / "runs")
    where = options(made, tmp_path / "runs")
    here.ran = []
    ended = invoke("run", "--methods", "fragile,erm", *where, "--recipe", str(path))
    assert ended.exit_code == 0, ended.output
    assert [trial.method for trial in here.ran] == ["erm"], "the chosen trial is in the store already"
    assert "settings of fragile chosen on val; the others not tuned" in " ".join(ended.output.split())
    here.ran = []
    assert invoke("run", "--methods", "fragile", *options(made, tmp_path / "new"), "--recipe", str(path)).exit_code == 0
    (trial,) = here.ran
    assert trial.supervision.tuned_on == "val"
    config = {key: value for key, value in recipe["settings"].items() if "." not in key}
    assert config.items() <= trial.config.items()
    assert f"--recipe {path}" in trial.command()
    set_too = ["--set", "fragile.scale=0.75", "--recipe", str(path)]
    assert invoke("run", "--methods", "fragile", *options(made, tmp_path / "new"), *set_too).exit_code == 0
    assert here.ran[-1].config["scale"] == 0.75


@pytest.mark.usefixtures("here")
def test_a_chosen_default_is_said_to_be_chosen(made: Path, tmp_path: Path) -> None:
    where = options(made, tmp_path)
    assert invoke("run", "--methods", "fragile", *where).exit_code == 0
    assert tune(made, tmp_path, "--trials", "1", "--select", "val-unbiased").exit_code == 0
    assert [r.trial.supervision.tuned_on for r in read_results(tmp_path)[0]] == [None]
    path, _ = recipe_of(tmp_path)
    assert invoke("run", "--methods", "fragile", *where, "--recipe", str(path)).exit_code == 0
    assert [r.trial.supervision.tuned_on for r in read_results(tmp_path)[0]] == ["val_unbiased"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"scal": 1.0}}, "unknown setting of method 'fragile' in recipe .*'scal'; did you mean 'scale'"),
        ({"settings": {"train.rate": 1.0}}, "unknown setting of stage 'train' of method 'fragile' in recipe .*Known:"),
        ({"settings": {"scale": "much"}}, "scale='much'.*valid number"),
        ({"settings": {"later.lr": 0.1}}, "fragile has no stage 'later'"),
        ({"note": 1}, "unknown setting of recipe .*'note'"),
        ({"tuned_on": "test"}, "tuned_on='test'"),
        ({"method": "erm", "settings": {}}, "is for method 'erm', which is not among fragile"),
        ({"dataset": "cmnist"}, "is for data set 'cmnist', which is not among arrays"),
    ],
)
@pytest.mark.usefixtures("here")
def test_a_recipe_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, made: Path, tmp_path: Path
) -> None:
    known = {"method": "fragile", "dataset": "arrays", "params": {}, "protocol": "quick", "backbone": "mlp"}
    known |= {"seeds": [0], "settings": {}, "searched": {}, "criterion": "val", "split": "val", "score": 0.5}
    known |= {"own_score": 0.5, "trial": 0, "trials": 1, "failed": 0, "tuned_on": "val"}
    known |= {"command": "", "commit": "", "date": ""}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**known, **change}))
    ended = invoke("run", "--methods", "fragile", *options(made, tmp_path / "runs"), "--recipe", str(path))
    assert ended.exit_code == 2
    assert re.search(message, ended.output), ended.output


@pytest.mark.usefixtures("here")
def test_a_recipe_runs_no_code(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text(f"method: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    ended = invoke("run", "--methods", "erm", *options(made, tmp_path / "runs"), "--recipe", str(path))
    assert (ended.exit_code, "is no YAML of plain values" in ended.output) == (2, True)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("more", "where", "message"),
    [
        (["--select", "oracle"], {}, "reads the test split"),
        (["--select", "last"], {}, "reads no labels"),
        (["--select", "best"], {}, "one of val, val-unbiased, val-worst-group, ac"),
        (["--select", "val"], {"method": "erm"}, "method 'erm' has nothing to tune"),
        (["--select", "val"], {"file": "without.npz"}, "it has no split val"),
        (["--select", "ac"], {"file": "unlabelled.npz"}, "its split 'val' has no bias labels"),
        (["--select", "val", "--search", "fragile.train.epochs=[1, 9]"], {}, "it is not tuned"),
        (["--select", "val", "--search", 'fragile.train.lr=[0, 1, "log"]'], {}, "must start above 0"),
        (["--select", "val", "--search", 'fragile.scal=[0, 1, "log"]'], {}, "did you mean 'scale'"),
        (["--select", "val", "--search", "erm.scale=[1, 2]"], {}, "'erm' is not among --method fragile"),
        (["--select", "val", "--set", "fragile.scale=2"], {}, "fragile.scale is searched and set"),
        (["--select", "val", "--set", "fragile.train.epochs=2"], {}, "the number of epochs is the protocol's"),
        (["--select", "val", "--set", "fragile.scal=2"], {}, "did you mean 'scale'"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_training(
    more: list[str], where: dict[str, str], message: str, made: Path, tmp_path: Path, here: type[Here]
) -> None:
    ended = tune(made, tmp_path / "runs", *more, **where)
    assert ended.exit_code == 2
    assert message in ended.output
    assert not here.ran
    assert not (tmp_path / "runs").exists()


def test_a_range_on_the_command_line_makes_a_method_tunable(made: Path, tmp_path: Path, here: type[Here]) -> None:
    ranges = ["--search", 'erm.train.lr=[0.001, 0.1, "log"]', "--search", 'erm.train.optimizer=["sgd", "adam"]']
    assert tune(made, tmp_path, "--trials", "3", "--select", "val", *ranges, method="erm").exit_code == 0
    assert [trial.stages["train"].lr for trial in here.ran[1:]] == [p["train.lr"] for p, _ in studied(tmp_path)[1:]]
    assert not here.ran[0].stages


def test_what_is_set_stays_fixed_and_is_in_the_recipe(made: Path, tmp_path: Path, here: type[Here]) -> None:
    fixed = ["--set", "fragile.train.momentum=0.5"]
    ended = tune(made, tmp_path, "--trials", "2", "--select", "val", *fixed)
    assert ended.exit_code == 0, ended.output
    assert "from the first trial on about 7 seconds" in ended.output
    assert [trial.stages["train"].momentum for trial in here.ran] == [0.5, 0.5]
    path, recipe = recipe_of(tmp_path)
    assert recipe["settings"]["train.momentum"] == 0.5
    assert "--set fragile.train.momentum=0.5" in recipe["command"]
    here.ran.clear()
    data = options(made, tmp_path / "runs")
    assert invoke("run", "--methods", "fragile", *data, "--recipe", str(path)).exit_code == 0
    assert here.ran[0].stages["train"].momentum == 0.5


def test_declared_ranges_are_readable() -> None:
    counted = 0
    for name in registry.entries("method"):
        cls = registry.load_method(name)
        if any((f.json_schema_extra or {}).get("search") for f in cls.Config.model_fields.values()):  # type: ignore
            space = search_space(cls)
            counted += len(space)
            for dimension in space:
                for value in dimension.ends():
                    assert dimension.told(value) is not None
                    cls.Config.model_validate({dimension.key: value})
    assert counted > 20
    assert search_space(SpectralDecoupling)[0].kind == "float"


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(made: Path, tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "debias_zoo", "tune", "--method", "spectral_decoupling"]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "DEBIAS_ZOO_CHECKPOINT_SECONDS": "0"}
        more = ["--trials", "4", "--select", "val-unbiased"]
        return subprocess.Popen([*command, *options(made, out), *more], env=env, stdout=subprocess.DEVNULL, text=True)

    assert start(tmp_path / "whole").wait(timeout=280) == 0
    cut = start(tmp_path / "cut")
    while len(list((tmp_path / "cut").glob("*/*/*/config.json"))) < 3 and cut.poll() is None:
        time.sleep(0.02)
    cut.send_signal(signal.SIGKILL)
    assert cut.wait() == -signal.SIGKILL
    assert start(tmp_path / "cut").wait(timeout=280) == 0
    assert studied(tmp_path / "cut") == studied(tmp_path / "whole")
    names = [sorted(p.parent.name for p in (tmp_path / out).rglob("result.json")) for out in ("whole", "cut")]
    assert names[0] == names[1]
