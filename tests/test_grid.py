from __future__ import annotations

import itertools
from typing import Any

import pytest

from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid, default_precision, parse_datasets, parse_set, pick_device
from debias_zoo.trial import Trial


def one(**change: Any) -> Trial:
    request = Request(**{"methods": ["lnl"], "datasets": ["cmnist"], "protocol": "quick", **change})
    (trial,) = build_grid(request).trials.values()
    return trial


def test_every_combination_is_a_trial_and_seeds_come_first() -> None:
    grid = build_grid(Request(["erm", "gray"], ["cmnist:variance=0.02,0.03"], seeds=[0, 1], protocol="quick"))
    seen = [(t.seed, t.params["variance"], t.method) for t in grid.trials.values()]
    assert seen == list(itertools.product([0, 1], [0.02, 0.03], ["erm", "gray"]))
    assert grid.asked == list(grid.trials)


def test_identity_changes_with_anything_that_changes_numbers() -> None:
    base = one()
    others = [
        one(seeds=[1]),
        one(datasets=["cmnist:variance=0.03"]),
        one(datasets=["cmnist:val=0"]),
        one(protocol="standard"),
        one(backbone="resnet18"),
        one(precision="bf16"),
        one(sets=[("lnl", "scale", 0.2)]),
        one(sets=[("lnl", "train.lr", 0.5)]),
        one(sets=[("lnl", "unlearn.lr", 0.5)]),
        one(sets=[("lnl", "unlearn.epochs", 3)]),
        base.model_copy(update={"method_version": 2}),
        base.model_copy(update={"dataset_version": 2}),
        base.model_copy(update={"fingerprint": "other"}),
        base.model_copy(update={"needs": {"teacher": one(methods=["erm"])}}),
    ]
    identities = [trial.identity for trial in [base, *others]]
    assert len(set(identities)) == len(identities)
    assert one().identity == base.identity
    assert base.model_copy(update={"source": "said differently"}).identity == base.identity
    assert Trial.model_validate_json(base.model_dump_json()).identity == base.identity


def test_settings_are_merged_from_general_to_special() -> None:
    trial = one(sets=[("lnl", "train.lr", 0.5), ("lnl", "unlearn.lr", 0.25), ("lnl", "scale", 0.7)])
    assert (trial.settings.lr, trial.stages["unlearn"].lr, trial.config["scale"]) == (0.5, 0.25, 0.7)
    assert trial.settings.batch_size == 128


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["lnn"]}, r"unknown method 'lnn'; did you mean 'lnl'\? Known: .*blindeye.*plugins were looked for"),
        ({"methods": []}, "no method is named"),
        ({"datasets": ["cmnst"]}, r"unknown dataset 'cmnst'; did you mean 'cmnist'\?"),
        ({"datasets": ["cmnist:varance=0.03"]}, r"unknown parameter of data set 'cmnist': 'varance'; did you mean 'variance'\?"),
        ({"datasets": ["cmnist:variance=0.2"]}, r"data set 'cmnist': variance='0.2': .*less than or equal to 0.05.*pixels"),
        ({"datasets": ["cmnist:variance=red"]}, r"variance='red': Input should be a valid number"),
        ({"datasets": ["cmnist:0.03"]}, "'0.03' belongs to no key"),
        ({"datasets": ["cmnist:"]}, "nothing follows the colon"),
        ({"sets": [("lnl", "scal", 1.0)]}, r"unknown setting of method 'lnl': 'scal'; did you mean 'scale'\?"),
        ({"sets": [("lnl", "scale", -1.0)]}, r"method 'lnl': scale=-1.0: Input should be greater than or equal to 0"),
        ({"sets": [("erm", "scale", 1.0)]}, "'erm' is not among --methods lnl"),
        ({"sets": [("lnl", "train.rate", 1.0)]}, r"unknown setting of stage 'train' of method 'lnl': 'rate'"),
        ({"sets": [("lnl", "unlern.lr", 1.0)]}, "lnl has no stage 'unlern'; its stages: pretrain, unlearn"),
        ({"sets": [("lnl", "tap", 9)]}, "backbone 'lnl_convnet' has taps 0 ... 3; got 9"),
        ({"backbone": "resnet81"}, r"unknown backbone 'resnet81'; did you mean 'resnet\d+.*in all"),
        ({"methods": ["rebias"], "sets": [("rebias", "train.batch_size", 2)]}, "'rebias' needs batches of at least 4; got 2"),
        ({"methods": ["rebias"], "sets": [("rebias", "biased_options", {"kern": 1})]}, "does not take kern"),
    ],
)
def test_bad_input_is_refused_before_any_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        one(**change)


def test_a_protocol_without_a_recipe_says_where_there_is_one() -> None:
    from debias_zoo.grid import find_recipe
    from debias_zoo.registry import load_method

    with pytest.raises(ZooError, match="no recipe for --protocol paper on data set 'elsewhere'; it has one for: cmnist"):
        find_recipe(load_method("lnl"), "elsewhere", "paper")


def test_values_with_lists_are_sweeps() -> None:
    found = parse_datasets("cmnist:variance=0.02,0.03,val=0")
    assert [(d.params.variance, d.params.val) for d in found] == [(0.02, 0), (0.03, 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lnl.scale=0.3", ("lnl", "scale", 0.3)),
        ("rebias.sigma=median", ("rebias", "sigma", "median")),
        ('rebias.biased_options={"kernel": 7}', ("rebias", "biased_options", {"kernel": 7})),
        ("lnl.unlearn.lr=1e-3", ("lnl", "unlearn.lr", 1e-3)),
    ],
)
def test_parse_set(text: str, expected: tuple[str, str, Any]) -> None:
    assert parse_set(text) == expected


@pytest.mark.parametrize("text", ["lnl", "lnl.scale", "scale=1", ".scale=1"])
def test_parse_set_refuses(text: str) -> None:
    with pytest.raises(ZooError, match="write METHOD.KEY=VALUE"):
        parse_set(text)


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    for bad in ("cuda:99", "gpu", "cpu:1"):
        with pytest.raises(ZooError, match=f"device '{bad}' is not here; this machine has: cpu"):
            pick_device(bad)
    assert default_precision("cpu") in {"fp32", "bf16"}


def test_every_recipe_builds() -> None:
    from debias_zoo.grid import dry_run
    from debias_zoo.registry import entries, load_method

    for name in entries("method"):
        for recipe in load_method(name).recipes:
            request = Request([name], [f"{recipe.dataset}:val=0"], protocol=recipe.protocol)
            (trial,) = build_grid(request).trials.values()
            dry_run(trial, None)
            assert trial.source == recipe.source
            assert not trial.settings.missing()
