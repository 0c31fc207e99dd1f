from __future__ import annotations

import pytest
import torch
from replicas import (
    COUNTS,
    assert_same_gradients,
    clock,
    cross_entropy,
    gradients,
    label_view,
    lnl_net,
    make_batch,
    make_method,
    weights,
)
from torch import Tensor
from watching import WatchingEngine, same

from debias_zoo.backbones import BackboneFactory
from debias_zoo.method import Task
from debias_zoo.methods.subsample import Subsample
from debias_zoo.registry import load_method
from debias_zoo.testing.bench import Bench
from debias_zoo.testing.synthetic import even_split

Counts = tuple[tuple[int, ...], ...]


def kept(counts: Counts, seed: int = 0) -> Tensor:
    """How often the images of a split with these groups are shown, in a trial of this seed."""
    task = Task(len(counts), len(counts[0]), sum(map(sum, counts)), (3, 12, 12), (), None, counts)
    factory = BackboneFactory("lnl_convnet", task.classes, task.image_shape, "cifar", seed)
    method = Subsample(factory, task, Subsample.Config())
    view = label_view(counts)
    view.generator = torch.Generator().manual_seed(seed)  # as the trainer does
    method.start_stage(method.stages()[0], view)  # type: ignore[arg-type]
    return method.sampling().counts


def by_group(shown: Tensor, counts: Counts) -> list[list[int]]:
    view = label_view(counts)
    return [
        [int(shown[(view.labels == y) & (view.biases == b)].sum()) for b in range(len(row))]
        for y, row in enumerate(counts)
    ]


def test_is_plain_cross_entropy() -> None:
    method, batch = make_method("subsample"), make_batch()
    w = weights(method)
    loss = method("main", batch, clock())["loss"]
    assert_same_gradients(method, loss, cross_entropy(lnl_net(w, batch.image)[0], batch.label), w, ("net.",))
    assert all(grad is not None for grad in gradients(method, loss).values())


@pytest.mark.parametrize(
    ("counts", "least"),
    [
        (((3498, 184), (56, 1057)), 56),  # Waterbirds: 224 images
        (((9, 2, 2, 4), (3, 8, 2, 3), (5, 2, 7, 5)), 2),
        (((9, 0, 3, 4), (3, 8, 0, 3), (5, 4, 7, 5)), 3),  # empty groups do not count, or nothing would be left
    ],
)
def test_as_many_images_of_every_group_as_the_smallest_has(counts: Counts, least: int) -> None:
    shown = kept(counts)
    assert set(shown.tolist()) <= {0, 1}
    assert by_group(shown, counts) == [[min(least, count) for count in row] for row in counts]


def test_the_draw_is_that_of_the_trials_seed_and_every_image_can_be_drawn() -> None:
    assert torch.equal(kept(COUNTS, 3), kept(COUNTS, 3))
    draws = torch.stack([kept(COUNTS, seed) for seed in range(60)])
    view = label_view()
    largest = (view.labels == 0) & (view.biases == 0)  # nine images, of which one is kept
    assert draws[:, largest].sum(0).min() >= 1
    assert int(draws[:, largest].sum()) == 60


def test_all_epochs_show_the_same_images_once() -> None:
    ran = Bench(Subsample).fit(engine=WatchingEngine)
    engine = ran.trainer.engine
    assert isinstance(engine, WatchingEngine)
    size = len(ran.trainer.train)
    first = engine.draws("main", 0, size)
    assert 0 < int(first.sum()) < size
    for epoch in range(4):
        assert torch.equal(engine.draws("main", epoch, size), first)
    assert torch.equal(first, ran.fit.method.counts)  # type: ignore[arg-type]


def test_on_equal_groups_it_is_erm() -> None:
    split = even_split(48, 12)
    nets = [Bench(load_method(name)).fit(split).fit.method.state_dict() for name in ("erm", "subsample")]
    assert same(*nets, "net.")
