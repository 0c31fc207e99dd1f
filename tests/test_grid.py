from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from registered import register
from safetensors.torch import load_file
from torch import Tensor

from debias_zoo import registry
from debias_zoo.assembly import build_method
from debias_zoo.devices import default_precision, pick_device
from debias_zoo.errors import ZooError
from debias_zoo.grid import Request, build_grid, parse_datasets, parse_set
from debias_zoo.method import Backbones, Batch, Clock, Method, Need, Optim, Task, setting
from debias_zoo.plans import plan_stages
from debias_zoo.registry import load_method
from debias_zoo.runner import run_trial
from debias_zoo.source_facts import facts_of
from debias_zoo.store import read_results
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


def test_pixels_are_normalised_as_the_command_says() -> None:
    trial = one(normalize="half")
    assert (trial.normalize, trial.options) == ("half", ("--normalize half",))
    assert trial.command().endswith("--normalize half")
    with pytest.raises(ZooError, match="unknown normalisation 'hal'; did you mean 'half'"):
        one(normalize="hal")


def test_identity_changes_with_anything_that_changes_numbers() -> None:
    base = one()
    others = [
        one(seeds=[1]),
        one(datasets=["cmnist:variance=0.03"]),
        one(datasets=["cmnist:val=0"]),
        one(protocol="standard"),
        one(backbone="resnet18"),
        one(precision="bf16"),
        one(normalize="none"),
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
    sets = [("lnl_adaptive", key, value) for key, value in (("train.lr", 0.5), ("train.epochs", 10), ("scale", 0.7))]
    trial = one(methods=["lnl_adaptive"], protocol="standard", sets=[*sets, ("lnl_adaptive", "pretrain.lr", 0.25)])
    assert trial.config["scale"] == 0.7
    plans = plan_stages(untrained(trial), trial.settings, trial.stages)
    assert [(plan.stage.name, plan.epochs, plan.settings.lr) for plan in plans] == [
        ("pretrain", 2, 0.25),
        ("unlearn", 8, 0.5),
    ]
    assert {plan.settings.batch_size for plan in plans} == {128}
    plain = one(methods=["lnl_adaptive"], protocol="standard")
    plans = plan_stages(untrained(plain), plain.settings, plain.stages)
    assert [plan.settings.lr for plan in plans] == [0.01, 0.005], "the recipe's rate of one stage"


def test_a_number_of_epochs_on_the_command_line_beats_the_papers() -> None:
    trial = one(protocol="paper", sets=[("lnl", "train.epochs", 2)])
    assert [plan.epochs for plan in plan_stages(untrained(trial), trial.settings, trial.stages)] == [1, 1]
    assert "set on the command line: train.epochs=2" in trial.deviations
    trial = one(protocol="paper", sets=[("lnl", "pretrain_share", 0)])
    assert [plan.epochs for plan in plan_stages(untrained(trial), trial.settings, trial.stages)] == [100]


def test_another_network_than_the_papers_is_a_deviation() -> None:
    own = one(protocol="paper")
    assert not [text for text in own.deviations if "command line" in text]
    other = one(protocol="paper", backbone="simple_convnet", normalize="none")
    told = [text for text in other.deviations if "command line" in text]
    assert told == ["set on the command line: backbone=simple_convnet", "set on the command line: normalize=none"]
    assert one(protocol="paper", backbone=own.backbone, normalize=own.normalize).deviations == own.deviations
    assert one(protocol="standard", normalize="none").deviations == one(protocol="standard").deviations


def untrained(trial: Trial) -> Method:
    """The method of a trial on Colored MNIST."""
    return build_method(trial, Task(10, 10, 1000, (3, 28, 28), (10,), (3, 8, 14, 14)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"methods": ["lnn"]},
            r"unknown method 'lnn'; did you mean 'lnl'\? Known: .*blindeye.*plugins were looked for",
        ),
        ({"methods": []}, "no method is named"),
        ({"datasets": ["cmnst"]}, r"unknown dataset 'cmnst'; did you mean 'cmnist'\?"),
        (
            {"datasets": ["cmnist:varance=0.03"]},
            r"unknown parameter of data set 'cmnist': 'varance'; did you mean 'variance'\?",
        ),
        (
            {"datasets": ["cmnist:variance=0.2"]},
            r"data set 'cmnist': variance='0.2': .*less than or equal to 0.05.*pixels",
        ),
        ({"datasets": ["cmnist:variance=red"]}, r"variance='red': Input should be a valid number"),
        ({"datasets": ["cmnist:0.03"]}, "'0.03' belongs to no key"),
        ({"datasets": ["cmnist:"]}, "nothing follows the colon"),
        (
            {"datasets": ["cmnist:variance=0.02,variance=0.03"]},
            "'variance' is given twice; a sweep is variance=value,value",
        ),
        ({"sets": [("lnl", "scale", float("inf"))]}, "scale=inf: Input should be a finite number"),
        ({"methods": ["rebias"], "sets": [("rebias", "sigma", 0)]}, r"sigma\.\S+=0: "),
        ({"methods": ["rebias"], "sets": [("rebias", "biased_options", {"role": "x"})]}, "cannot work with backbone"),
        (
            {"backbone": "vgg11"},
            r"cannot work with backbone 'vgg11' on images of \(3, 28, 28\)|'vgg11' cannot be tapped",
        ),
        ({"sets": [("lnl", "scal", 1.0)]}, r"unknown setting of method 'lnl': 'scal'; did you mean 'scale'\?"),
        ({"sets": [("lnl", "scale", -1.0)]}, r"method 'lnl': scale=-1.0: Input should be greater than or equal to 0"),
        ({"sets": [("erm", "scale", 1.0)]}, "'erm' is not among --methods lnl"),
        ({"sets": [("lnl", "train.rate", 1.0)]}, r"unknown setting of stage 'train' of method 'lnl': 'rate'"),
        ({"sets": [("lnl", "unlern.lr", 1.0)]}, "lnl has no stage 'unlern'; its stages: pretrain, unlearn"),
        ({"sets": [("lnl", "tap", 9)]}, "backbone 'lnl_convnet' has taps 0 ... 3; got 9"),
        ({"backbone": "resnet81"}, r"unknown backbone 'resnet81'; did you mean 'resnet\d+.*in all"),
        (
            {"methods": ["rebias"], "sets": [("rebias", "train.batch_size", 2)]},
            "'rebias' needs batches of at least 4; got 2",
        ),
        ({"methods": ["rebias"], "sets": [("rebias", "biased_options", {"kern": 1})]}, "does not take kern"),
    ],
)
def test_bad_input_is_refused_before_any_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        one(**change)


def test_a_protocol_without_a_recipe_says_where_there_is_one() -> None:
    from debias_zoo.grid import find_recipe

    with pytest.raises(
        ZooError, match="no recipe for --protocol paper on data set 'elsewhere'; it has one for: cmnist"
    ):
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
    with pytest.raises(ZooError, match=r"write METHOD\.KEY=VALUE"):
        parse_set(text)


def test_devices() -> None:
    assert pick_device("cpu") == "cpu"
    for bad in ("cuda:99", "gpu", "cpu:1"):
        with pytest.raises(ZooError, match=f"device '{bad}' is not here; this machine has: cpu"):
            pick_device(bad)


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_processor_trains_in_bf16_where_it_has_a_matrix_unit(
    amx: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AVX-512's bf16 instructions alone do not make it the default."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert default_precision("cpu") == precision


def test_every_recipe_builds() -> None:
    bundled = {"cmnist", "cmnist-lff", "biased-mnist"}
    for name in registry.entries("method"):
        cls = load_method(name)
        for recipe in cls.recipes:
            if recipe.dataset not in bundled:
                stages = [stage.over(recipe.settings) for stage in recipe.stages.values()] or [recipe.settings]
                assert not any(stage.missing() for stage in stages)
                continue
            dataset = recipe.dataset if cls.needs_val_bias else f"{recipe.dataset}:val=0"
            grid = build_grid(Request([name], [dataset], protocol=recipe.protocol))
            trial = grid.trials[grid.asked[0]]
            assert trial.source == recipe.source
            assert not trial.settings.missing()


class Student(Method):
    """Learns a teacher's predictions; the teacher is another trial."""

    name = "student"

    class Config(Method.Config):
        """Settings."""

        scale: float = setting(0.1, "of the teacher's reversal", source="ours")
        teacher: str = setting("lnl", "method of the teacher", source="ours")

    def __init__(self, backbones: Backbones, task: Task, config: Any) -> None:
        super().__init__(backbones, task, config)
        self.teacher = backbones.teacher("teacher")

    @classmethod
    def needs(cls, config: Any) -> dict[str, Need]:
        return {"teacher": Need(config.teacher, {"scale": config.scale})}

    def optimizers(self) -> dict[str, Optim]:
        return {"main": Optim(self.net.parameters())}

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        target = self.teacher.predict(batch.image).float().softmax(1)
        return {"loss": F.cross_entropy(self.net(batch.image).float(), target)}


def test_an_adversary_on_a_bias_that_is_the_label_warns() -> None:
    assert not build_grid(Request(["lnl"], ["cmnist"])).warnings
    (warning,) = build_grid(Request(["lnl", "erm"], ["cmnist"], seeds=[0, 1], backbone="mlp")).warnings
    assert "lnl on cmnist: every training image of a class has one bias" in warning


def test_a_teacher_is_another_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    register(monkeypatch, Student)
    grid = build_grid(Request(["student"], ["cmnist"], protocol="quick"))
    teacher, student = grid.trials.values()
    assert (teacher.method, student.method) == ("lnl", "student")
    assert grid.asked == [student.identity]
    assert student.supervision.level == "bias labels to train", "what the teacher read was not inherited"
    other = build_grid(Request(["student"], ["cmnist"], protocol="quick", sets=[("student", "scale", 0.2)]))
    assert next(iter(other.trials)) != teacher.identity
    with pytest.raises(ZooError, match="method 'student' needs a trained 'nobody' as its teacher: unknown method"):
        build_grid(Request(["student"], ["cmnist"], sets=[("student", "teacher", "nobody")]))
    small = {"train_limit": 256, "eval_limit": 50}
    teacher = teacher.model_copy(update=small)
    student = student.model_copy(update={**small, "needs": {"teacher": teacher}})
    with pytest.raises(ZooError, match="has no trained network"):
        run_trial(student, tmp_path)
    run_trial(teacher, tmp_path)
    run_trial(student, tmp_path)
    weights = load_file(tmp_path / teacher.folder / "model.safetensors")
    handed = load_file(tmp_path / student.folder / "model.safetensors")
    assert all(torch.equal(value, handed[f"teacher.{name}"]) for name, value in weights.items())
    assert read_results(tmp_path)[0][1].trial.needs["teacher"].identity == teacher.identity


def test_data_that_are_not_the_papers_are_a_deviation_under_their_protocol() -> None:
    (held_out,) = build_grid(Request(["lnl"], ["cmnist"], protocol="paper")).trials.values()
    assert "the data have val=6000, the papers' val=0" in held_out.deviations
    (whole,) = build_grid(Request(["lnl"], ["cmnist:val=0"], protocol="paper")).trials.values()
    assert not any("val=" in text for text in whole.deviations)
    (standard,) = build_grid(Request(["lnl"], ["cmnist"])).trials.values()
    assert not any("val=" in text for text in standard.deviations)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ([("erm", "train.lr", 0.1), ("erm", "train.lr", 0.2)], "erm.train.lr is given twice"),
        ([("gray", "train.lr", 0.1)], "'gray' is not among --methods erm"),
        ([("erm", "train.augment", {"resized_crop": [0.9, 0.1]})], r"augment\.resized_crop.*least <= most"),
        ([("erm", "train.augment", {"bogus": 3})], r"augment\.bogus=3"),
    ],
)
def test_settings_that_make_no_sense(sets: Any, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        one(methods=["erm"], sets=sets)


def test_null_is_no_value_of_a_training_setting() -> None:
    with pytest.raises(ZooError, match="null leaves a setting as it is"):
        parse_set("irm.train.clip=null")


def test_a_teacher_can_be_set_too() -> None:
    grid = build_grid(Request(["dedier"], ["cmnist"], protocol="quick", sets=[("erm", "train.lr", 0.5)]))
    teacher = next(trial for trial in grid.trials.values() if trial.method == "erm")
    assert teacher.stages["train"].lr == 0.5


def test_facts_of_a_class_come_from_the_modules_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("from .inner import Mine as Shown\n")
    (tmp_path / "inner.py").write_text(
        "from debias_zoo.methods.lnl import LNL\n\nclass Mine(LNL):\n    '''Mine.'''\n    name = 'mine'\n"
    )
    facts = facts_of(tmp_path / "__init__.py", "Shown")
    assert (facts["name"], facts["about"], facts["sees_bias"]) == ("mine", "Mine.", True)


def test_a_plugin_that_is_no_method_or_ends_the_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.importlib.import_module
    for target, words in (
        ("json:JSONDecoder", "is no subclass of debias_zoo.method.Method"),
        ("this_exits:X", "SystemExit"),
    ):
        found = registry.Entry("method", "odd", target, "odd-zoo")
        monkeypatch.setattr(registry, "entries", lambda kind, found=found: {"odd": found})

        def load(name: str) -> Any:
            if name == "this_exits":
                raise SystemExit(3)
            return real(name)

        monkeypatch.setattr(registry.importlib, "import_module", load)
        with pytest.raises(ZooError, match=words):
            registry.load_method("odd")
