"""Which epoch each rule takes, by hand; what it reads; and that the regret is never negative."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_results import make_result

from debias_zoo.errors import ZooError
from debias_zoo.metrics import ALL_METRICS, goodness
from debias_zoo.reports.report import Asked, make_report, render_report
from debias_zoo.reports.selection import RULES, Epochs, known_rules, select
from debias_zoo.store import Run
from debias_zoo.trial import Groups

LABELS = np.array([0, 0, 0, 1, 1, 1, 0, 1], dtype=np.int16)
BIASES = np.array([0, 0, 0, 1, 1, 1, 1, 0], dtype=np.int16)  # the last two images conflict
GROUPS = Groups(classes=("a", "b"), biases=("p", "q"), aligned=((0,), (1,)), train=((40, 1), (1, 40)))

ALIGNED = [1, 1, 1, 1, 1, 1, 0, 0]
HALF = [1, 1, 0, 1, 1, 0, 1, 0]
FAIR = [1, 1, 0, 0, 0, 1, 1, 1]
NONE = [0, 0, 0, 0, 0, 0, 0, 0]


def write(
    folder: Path, splits: dict[str, list[list[int]]], selectable: int, *, method: str = "erm", biased: bool = True
) -> Run:
    """A run whose predictions are right (1) or wrong (0) in each epoch, image by image."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for split, rows in splits.items():
        right = np.array(rows, dtype=bool)
        arrays[f"{split}.class"] = np.where(right, LABELS, 1 - LABELS).astype(np.uint8)
        arrays[f"{split}.log_odds"] = np.linspace(0.1, 3, right.size).reshape(right.shape).astype(np.float16)
        arrays[f"{split}.label"] = LABELS
        if biased:
            arrays[f"{split}.bias"] = BIASES
    np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **arrays)
    result = make_result(method, 0).model_copy(update={"groups": GROUPS, "selectable": selectable})
    epochs = Epochs(Run(result, folder))
    return Run(result.model_copy(update={"metrics": epochs.all_metrics(epochs.count - 1)}), folder)


def chosen(run: Run, rule: str, metric: str = "accuracy") -> int | None:
    return Epochs(run).chosen(RULES[rule], "test", metric)


def test_each_rule_takes_its_epoch(tmp_path: Path) -> None:
    val = [ALIGNED, HALF, FAIR, NONE]
    run = write(tmp_path, {"val": val, "test": [NONE, FAIR, HALF, NONE]}, 4)
    # val: accuracy 6/8, 5/8, 5/8, 0; unbiased .5, .583, .75, 0; worst group 0, 0, 1/3, 0; ac .5, .583, .75, 0
    assert {rule: chosen(run, rule) for rule in RULES} == {
        "last": 3,
        "val": 0,
        "val-unbiased": 2,
        "val-worst-group": 2,
        "ac": 2,
        "oracle": 2,  # epochs 1 and 2 have the same accuracy on the test: the later one
    }
    assert chosen(run, "oracle", "worst_group") == 1


def test_a_split_without_bias_is_preferred_by_the_rules_that_read_bias_labels(tmp_path: Path) -> None:
    splits = {"val": [FAIR, ALIGNED, NONE], "val_unbiased": [ALIGNED, NONE, FAIR], "test": [NONE, NONE, FAIR]}
    run = write(tmp_path, splits, 3)
    assert chosen(run, "val") == 1
    assert chosen(run, "val-unbiased") == 2


def test_only_epochs_of_the_last_stage_can_be_chosen(tmp_path: Path) -> None:
    splits = {"val": [ALIGNED, HALF, NONE], "test": [ALIGNED, HALF, NONE]}
    assert chosen(write(tmp_path / "a", splits, 2), "val") == 1
    final = write(tmp_path / "b", splits, 1)  # its `finish` changes what is predicted
    assert {chosen(final, rule) for rule in RULES} == {2}


def test_a_rule_that_cannot_be_asked_has_no_epoch(tmp_path: Path) -> None:
    no_val = write(tmp_path / "a", {"test": [FAIR, HALF]}, 2)
    assert chosen(no_val, "val") is None
    assert chosen(no_val, "last") == 1
    no_bias = write(tmp_path / "b", {"val": [HALF, FAIR], "test": [HALF, FAIR]}, 2, biased=False)
    assert chosen(no_bias, "val") == 1
    assert chosen(no_bias, "val-worst-group") is None
    report = make_report([no_val], [], Asked(rules=["val"]))
    assert report.table.problems == (
        "left out: erm on cmnist, seed 0: val reads validation labels, and there are none",
    )


def test_a_rule_that_reads_bias_labels_moves_the_row(tmp_path: Path) -> None:
    run = write(tmp_path, {"val": [HALF, FAIR], "test": [FAIR, HALF]}, 2)
    for rule, level in (
        ("val", "no bias labels"),
        ("val-unbiased", "bias labels to select"),
        ("last", "no bias labels"),
    ):
        result = select(Epochs(run), RULES[rule], "test", "accuracy")
        assert result is not None
        assert result.trial.supervision.level == level
        assert result.identity == run.result.identity


def test_results_of_the_first_schema_show_their_last_epoch_alone(tmp_path: Path) -> None:
    run = write(tmp_path, {"val": [HALF], "test": [FAIR]}, 1)
    old = Run(run.result.model_copy(update={"groups": None, "schema_version": 1}), run.path)
    with pytest.raises(ZooError, match="only its last epoch can be shown"):
        Epochs(old)
    report = make_report([old], [], Asked(rules=["last", "val"]))
    assert "schema 1" in report.sheets[0].problems[0]
    assert len(make_report([old], [], Asked()).table.rows) == 1


def test_damaged_and_missing_predictions_are_told(tmp_path: Path) -> None:
    run = write(tmp_path, {"test": [FAIR]}, 1)
    (tmp_path / "predictions.npz").write_bytes(b"PK half of it")
    with pytest.raises(ZooError, match="cannot be read"):
        Epochs(run)
    (tmp_path / "predictions.npz").unlink()
    with pytest.raises(ZooError, match="is missing"):
        Epochs(run)


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ZooError, match="unknown selection rule 'val-unbiasd'; did you mean 'val-unbiased'"):
        known_rules(["val-unbiasd"])


ROWS = st.lists(st.lists(st.integers(0, 1), min_size=8, max_size=8), min_size=4, max_size=4)


@given(ROWS, ROWS, st.integers(1, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_the_regret_is_never_negative(
    tmp_path: Path, val: list[list[int]], test: list[list[int]], selectable: int
) -> None:
    epochs = Epochs(write(tmp_path, {"val": val, "test": test}, selectable))
    for metric in ALL_METRICS:
        best = epochs.chosen(RULES["oracle"], "test", metric)
        for rule in RULES.values():
            epoch = epochs.chosen(rule, "test", metric)
            if best is None or epoch is None:
                continue
            top, value = epochs.metrics("test", best)[metric], epochs.metrics("test", epoch)[metric]
            assert top is not None
            assert value is not None
            assert goodness(metric, top) >= goodness(metric, value)


def test_rules_are_columns_with_their_regret(tmp_path: Path) -> None:
    run = write(tmp_path, {"val": [ALIGNED, FAIR], "test": [NONE, FAIR]}, 2)
    report = make_report([run], [], Asked(rules=["last", "val", "oracle"]))
    assert make_report([run], ["failed: x"], Asked(rules=["last", "val"])).sheets[0].problems == ("failed: x",)
    text = render_report(report, "markdown")
    assert "| erm | 62.50 (0.00) | 0.00 (62.50) | 62.50 |" in text
    assert "val: best validation accuracy, reads validation labels" in text
    csv = render_report(report, "csv")
    assert "val_mean,val_std,val_regret,val_epochs" in csv
    assert ",0.0,,0.625,[0]," in csv
