"""Augmentation: what each step does to pixels and dense labels, and that it depends on seed, epoch and image alone."""

from __future__ import annotations

import pytest
import torch

from debias_zoo.augment import augmented, uniforms
from debias_zoo.protocol import Augment, Settings
from debias_zoo.testing.bench import Bench
from debias_zoo.testing.synthetic import uneven_split

INDEX = torch.arange(1000)


def images(count: int = 1000, side: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_numbers_are_uniform_and_depend_on_image_key_and_place() -> None:
    u = uniforms(torch.arange(20_000), 12345, 4)
    assert u.dtype == torch.float32
    assert 0.0 <= float(u.min()) <= float(u.max()) < 1.0
    assert (u.mean(0) - 0.5).abs().max() < 0.01
    assert (u.var(0) - 1 / 12).abs().max() < 0.005
    assert torch.corrcoef(u.T).fill_diagonal_(0.0).abs().max() < 0.03
    assert (torch.corrcoef(torch.stack([u[1:, 0], u[:-1, 0]]))[0, 1]).abs() < 0.03
    assert torch.equal(uniforms(torch.tensor([17]), 12345, 4)[0], u[17])
    assert not torch.equal(uniforms(torch.arange(20_000), 12346, 4), u)


@pytest.mark.parametrize(
    "how",
    [
        Augment(flip=True),
        Augment(pad_crop=2, flip=True),
        Augment(resized_crop=(0.5, 1.0), flip=True),
        Augment(jitter=0.4),
        Augment(resized_crop=(0.2, 1.0), pad_crop=1, flip=True, jitter=0.2),
    ],
)
def test_an_image_is_augmented_alike_in_any_batch(how: Augment) -> None:
    image = images()
    whole, _ = augmented(how, image, None, INDEX, 7)
    part, _ = augmented(how, image[100:103], None, INDEX[100:103], 7)
    torch.testing.assert_close(whole[100:103], part)
    assert 0.0 <= float(whole.min()) <= float(whole.max()) <= 1.0
    other, _ = augmented(how, image, None, INDEX, 8)
    assert not torch.allclose(whole, other)


def test_half_of_the_images_are_mirrored_and_no_pixel_changes() -> None:
    image = images()
    seen, _ = augmented(Augment(flip=True), image, None, INDEX, 3)
    mirrored = (seen == image.flip(3)).flatten(1).all(1)
    kept = (seen == image).flatten(1).all(1)
    assert bool((mirrored ^ kept).all())
    assert 400 < int(mirrored.sum()) < 600


def test_shifts_are_whole_pixels_and_show_black_outside() -> None:
    image = images(600)
    seen, _ = augmented(Augment(pad_crop=2), image, None, INDEX[:600], 3)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    counts = torch.zeros(5, 5, dtype=torch.long)
    for dy in range(5):
        for dx in range(5):
            same = (seen - padded[:, :, dy : dy + 8, dx : dx + 8]).abs().amax((1, 2, 3)) < 1e-5
            counts[dy, dx] = same.sum()
    assert counts.sum() == 600
    assert counts.min() > 5


def test_dense_labels_go_with_the_pixels() -> None:
    image = images(200, side=8)
    labels = (image[:, :1, ::2, ::2] * 8).long()  # what pixel each label belongs to
    labels[:, :, 0, 0] = -100
    seen, moved = augmented(Augment(flip=True), image, labels, INDEX[:200], 3)
    assert moved is not None
    mirrored = (seen == image.flip(3)).flatten(1).all(1)
    assert torch.equal(moved[mirrored], labels[mirrored].flip(3))
    assert torch.equal(moved[~mirrored], labels[~mirrored])
    _, shifted = augmented(Augment(pad_crop=8), image, labels, INDEX[:200], 3)
    assert shifted is not None
    assert set(shifted.unique().tolist()) <= {-100, *range(8)}
    assert (shifted == -100).float().mean() > 0.3, "outside is ignored"


def test_a_crop_keeps_its_share_of_the_area() -> None:
    ramp = torch.linspace(0, 1, 64).expand(500, 1, 64, 64).contiguous()
    seen, _ = augmented(Augment(resized_crop=(0.25, 0.25)), ramp, None, INDEX[:500], 3)
    spread = (seen[:, 0, 0, -1] - seen[:, 0, 0, 0]) / (ramp[0, 0, 0, -1] - ramp[0, 0, 0, 0])
    low, high = 0.5 * (3 / 4) ** 0.5, 0.5 * (4 / 3) ** 0.5
    assert float(spread.min()) >= low - 0.02
    assert float(spread.max()) <= high + 0.02
    assert float(seen.min()) >= 0.0
    assert seen[:, 0, 0, 0].std() > 0.1, "the part is at a random place"


def test_jitter_changes_brightness_within_its_bounds() -> None:
    gray = torch.full((500, 3, 4, 4), 0.5)
    seen, _ = augmented(Augment(jitter=0.2), gray, None, INDEX[:500], 3)
    assert float(seen.min()) >= 0.4 - 1e-6
    assert float(seen.max()) <= 0.6 + 1e-6
    assert seen[:, 0, 0, 0].std() > 0.05


def test_training_sees_other_pixels_every_epoch_and_resumes_with_the_same() -> None:
    from test_trainer import Small  # a method that remembers what it was handed

    how = Settings(augment=Augment(pad_crop=2, flip=True), optimizer="sgd", lr=0.01, momentum=0.9, weight_decay=0.0)
    settings = how.over(Settings(schedule="constant"))
    bench = Bench(Small)
    whole = bench.fit(uneven_split(32, 12), epochs=2, settings=settings, keep=True)
    again = bench.fit(uneven_split(32, 12), epochs=2, settings=settings, start=whole.checkpoints[0, 0, 1], build_seed=9)
    first = {
        (k, int(i)): x for k, b in enumerate(whole.fit.method.handed) for i, x in zip(b.index, b.image, strict=True)
    }
    steps = len(whole.fit.method.handed) // 2
    once = {i: x for (k, i), x in first.items() if k < steps}
    twice = {i: x for (k, i), x in first.items() if k >= steps}
    assert sum(torch.equal(once[i], twice[i]) for i in once) < len(once) / 2
    for batch, resumed in zip(whole.fit.method.handed[1:], again.fit.method.handed, strict=True):
        assert torch.equal(batch.image, resumed.image)
