"""What is said beside the numbers."""

from __future__ import annotations

from typing import Any

from made_results import SEES_BIAS, make_result, make_seeds, paper_table

from debias_zoo.metrics import METRICS
from debias_zoo.reports.caption import Notes, caption
from debias_zoo.reports.table import build_table
from debias_zoo.trial import STACKED, Result, Supervision


def said(results: list[Result]) -> str:
    return " ".join(caption(build_table(results)))


def test_the_caption_of_the_main_job() -> None:
    assert caption(build_table(paper_table())) == [
        "Results on cmnist (variance=0.02, val=6000, data_seed=0), split test, in per cent.",
        "Protocol: standard.",
        "Backbone: lnl_convnet.",
        "Precision: bf16.",
        "Mean ± sample standard deviation over n = 3 seeds (0, 1, 2).",
        "Selection: last epoch; reads no labels.",
        "Tuning: settings of lnl, lnl_adaptive chosen on val_unbiased; the others not tuned.",
        "Best bold, second best underlined (gap: nearest to zero).",
        "Published: test accuracy under the papers' own protocol, from Kim et al., CVPR 2019 (README of "
        "feidfoe/learning-not-to-learn); SZU-AdvTech-2022/156 (report).",
    ]


def test_why_there_are_no_group_metrics_or_not_of_every_group() -> None:
    unknown = {"test": {**dict.fromkeys(METRICS), "accuracy": 0.5, "n": 9.0}}
    assert "split test (which has no bias labels: only accuracy is known), in" in said([make_result(metrics=unknown)])
    known = {"test": {**unknown["test"], "unbiased": 0.5, "groups": 3.0, "empty_groups": 1.0}}
    assert "split test (1 of 4 groups have no image there and are left out), in" in said([make_result(metrics=known)])
    assert "split test, in" in said([make_result()]), "of a result that does not say"


def test_one_seed_is_called_one_seed_and_three_are_asked_for() -> None:
    text = said(make_seeds("erm", [0.4]) + make_seeds("gray", [0.5]))
    assert "One seed (0), so no ±: run at least three (--seeds 3) before comparing methods." in text
    assert "deviation" not in text
    differing = said([make_result("erm", 0), make_result("gray", 4)])
    assert "One seed (0 for erm; 4 for gray), so no ±" in differing


def test_seeds_that_differ_are_told_by_method() -> None:
    text = said(make_seeds("erm", [0.4, 0.5]) + make_seeds("gray", [0.5]))
    assert "over n seeds: n = 2 (0, 1) for erm; n = 1 (0) for gray. One seed gives no ±" in text
    moved = said([*make_seeds("erm", [0.4, 0.5]), make_result("gray", 3), make_result("gray", 5)])
    assert "over n = 2 seeds (0, 1 for erm; 3, 5 for gray)." in moved
    assert "over n = 10 seeds (0 to 9)." in said(make_seeds("erm", [0.4] * 10))


def test_backbone_precision_protocol_and_limits_are_told_by_method() -> None:
    text = said(
        [
            *make_seeds("erm", [0.4], protocol="quick", train_limit=2048, eval_limit=1000),
            *make_seeds("rebias", [0.4], backbone="simple_convnet", backbone_options={"kernel": 7}, precision="fp32"),
        ]
    )
    assert "Protocol: quick, at most 2048 training and 1000 evaluation images for erm; standard for rebias." in text
    assert "Backbone: lnl_convnet for erm; simple_convnet with kernel=7 for rebias." in text
    assert "Precision: bf16 for erm; fp32 for rebias." in text


def test_what_was_changed_by_hand_is_noted_where_no_label_tells_it() -> None:
    def with_options(*options: str, **trial: Any) -> Result:
        return make_result("erm", 0, options=("--weights /home/me/net.pth", *options), **trial)

    table = build_table([with_options("--set erm.train.epochs=2", "--normalize none"), *make_seeds("gray", [0.4])])
    notes = Notes(table)
    assert [notes.name(row).marks for row in table.rows] == [("1",), ()]
    assert ("1", "with --set erm.train.epochs=2 --normalize none") in notes.legend()
    labelled = build_table([with_options("--set a.b=1"), with_options("--set a.b=2", precision="fp32")])
    assert [text for _, text in Notes(labelled).legend() if "a.b" in text] == []


def made_by(results: list[Result], layout: str, *notes: str) -> list[Result]:
    return [r.model_copy(update={"environment": {"layout": layout}, "notes": list(notes)}) for r in results]


def test_other_programs_than_the_usual_ones_are_told_by_method() -> None:
    usual = made_by(make_seeds("erm", [0.4, 0.5]), "channels last")
    older = make_seeds("gray", [0.4, 0.5])
    assert "Steps" not in said([*usual, *older])
    assert "Steps" not in said([*usual, *made_by(make_seeds("jtt", [0.4, 0.5], backbone="mlp"), "contiguous")])
    told = "Steps (with another memory format, compiled or stacked, last digits differ): "
    compiled = made_by(make_seeds("gray", [0.4, 0.5]), "contiguous, compiled")
    assert f"{told}channels last for erm; contiguous, compiled for gray." in said([*usual, *compiled])
    stacked = made_by(make_seeds("gray", [0.4]), "channels last", f"{STACKED} 3 other seeds (--stack-seeds)")
    assert f"{told}channels last for erm; channels last, stacked seeds for gray." in said([*usual[:1], *stacked])
    mixed = [
        made_by(make_seeds("erm", [0.4, 0.5]), layout)[k] for k, layout in enumerate(["channels last", "contiguous"])
    ]
    assert f"{told}channels last or contiguous." in said(mixed)


def test_nothing_is_tuned_nothing_is_ranked_nothing_was_published() -> None:
    text = said(make_seeds("hex", [0.5, 0.6]))
    assert "Tuning: none tuned." in text
    assert "Best" not in text
    assert "Published" not in text


def test_all_tuned_leaves_no_others() -> None:
    tuned = [
        *make_seeds("lnl", [0.5], supervision=Supervision(train=True, tuned_on="val_unbiased")),
        *make_seeds("erm", [0.5], supervision=Supervision(tuned_on="val")),
    ]
    assert "Tuning: settings of lnl chosen on val_unbiased; settings of erm chosen on val." in said(tuned)


def test_parameters_that_are_swept_are_not_in_the_caption() -> None:
    sweep = [r for v in (0.02, 0.03) for r in make_seeds("erm", [0.5], params={"variance": v, "val": 0})]
    assert "Results on cmnist (val=0), split test, in per cent." in said(sweep)


def test_marks_and_their_legend() -> None:
    table = build_table(
        [
            *make_seeds("gray", [0.5], supervision=Supervision(knows_bias_kind=True, tuned_on="val")),
            *make_seeds("lnl", [0.5], supervision=Supervision(train=True, tuned_on="val_unbiased")),
            *make_seeds("blindeye", [0.5], supervision=SEES_BIAS),
        ]
    )
    notes = Notes(table)
    assert {row.method: notes.name(row).marks for row in table.rows} == {
        "gray": ("†", "§"),
        "lnl": ("‡",),
        "blindeye": (),
    }
    assert notes.legend() == [
        ("†", "built for one kind of bias"),
        ("‡", "settings chosen on val_unbiased, which reads bias labels"),
        ("§", "settings chosen on val"),
    ]


def test_long_settings_go_into_numbered_notes_and_short_ones_stay() -> None:
    long = {"schedule": {"first": "a" * 20, "second": 3}}
    table = build_table(make_seeds("lnl", [0.5], config={"scale": 0.1}) + make_seeds("lnl", [0.5], config=long))
    notes = Notes(table)
    names = {(name.marks, name.setting) for name in (notes.name(row) for row in table.rows)}
    assert names == {((), "lnl.scale=0.1"), (("1",), "")}
    assert notes.legend() == [("1", f"lnl.schedule.first={'a' * 20}, lnl.schedule.second=3")]


def test_problems_are_single_lines_and_not_endless() -> None:
    table = build_table(make_seeds("erm", [0.5]), problems=["failed: a\n  b", "odd \udc80 name", "c", "d"])
    assert Notes(table).problems() == ["failed: a b", "odd ? name", "c", "d"]
    assert Notes(table).problems(most=3) == ["failed: a b", "odd ? name", "c", "... and 1 more"]
