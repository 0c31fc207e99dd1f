"""Corruptions: each against its formula written out for one image, drawn from the same generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from debias_zoo.datasets import corruptions
from debias_zoo.datasets.corruptions import CORRUPTIONS, Floats, corrupt, frost, frost_pictures, plasma
from debias_zoo.errors import ZooError

LEVELS = range(1, 6)


def picture(seed: int = 0) -> Floats:
    """One smooth, colourful image (1, 32, 32, 3) in [0, 1], rounded to bytes."""
    noise = np.random.default_rng(seed).random((32, 32, 3))
    smooth = ndimage.gaussian_filter(noise, (3, 3, 0), mode="wrap")
    scaled = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(scaled * 255)[None] / 255


def drawn() -> np.random.Generator:
    return np.random.default_rng(7)


def blurred(image: Floats, sigma: float) -> Floats:
    """Convolution of (H, W, C) with a Gaussian cut at four sigma, edges repeated, as a double sum."""
    reach = int(4 * sigma + 0.5)
    taps = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-reach, reach + 1)]
    taps = [tap / sum(taps) for tap in taps]
    size = len(image)
    near = [[min(max(k + d, 0), size - 1) for d in range(-reach, reach + 1)] for k in range(size)]
    rows = np.stack([sum(tap * image[at] for tap, at in zip(taps, near[k], strict=True)) for k in range(size)])
    return np.stack([sum(tap * rows[:, at] for tap, at in zip(taps, near[k], strict=True)) for k in range(size)], 1)


def hsv(image: Floats, change: Any) -> Floats:
    import colorsys

    out = np.empty_like(image)
    for at in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[at])
        out[at] = colorsys.hsv_to_rgb(*change(h, s, v))
    return out


def replica(name: str, x: Floats, level: int, random: np.random.Generator) -> Floats:  # noqa: C901
    """The published formula on one image (32, 32, 3)."""
    k = level - 1
    if name == "gaussian noise":
        return x + random.normal(size=x.shape, scale=[0.04, 0.06, 0.08, 0.09, 0.10][k])
    if name == "shot noise":
        c = [500, 250, 100, 75, 50][k]
        return random.poisson(x * c) / c
    if name == "speckle noise":
        return x + x * random.normal(size=x.shape, scale=[0.06, 0.1, 0.12, 0.16, 0.2][k])
    if name == "impulse noise":
        hit, white = random.random(x.shape), random.random(x.shape)
        out = x.copy()
        for at in np.ndindex(x.shape):
            if hit[at] < [0.01, 0.02, 0.03, 0.05, 0.07][k]:
                out[at] = 1.0 if white[at] < 0.5 else 0.0
        return out
    if name == "gaussian blur":
        return blurred(x, [0.4, 0.6, 0.7, 0.8, 1][k])
    if name == "glass blur":
        sigma, reach, rounds = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)][k]
        pixels = (blurred(x, sigma) * 255 + 1e-9).astype(np.uint8)
        for _ in range(rounds):
            for h in range(32 - reach, reach, -1):
                for w in range(32 - reach, reach, -1):
                    dx, dy = (int(d) for d in random.integers(-reach, reach, (2, 1))[:, 0])
                    pixels[h, w] = pixels[h + dy, w + dx]
        return blurred(pixels / 255.0, sigma)
    if name == "zoom blur":
        factors = np.arange(1, [1.06, 1.11, 1.16, 1.21, 1.26][k], 0.01)
        total = x.copy()
        for factor in factors:
            inner = math.ceil(32 / factor)
            top = (32 - inner) // 2
            large = ndimage.zoom(x[top : top + inner, top : top + inner], (factor, factor, 1), order=1)
            trim = (len(large) - 32) // 2
            total += large[trim : trim + 32, trim : trim + 32]
        return total / (len(factors) + 1)
    if name == "motion blur":
        radius, sigma = [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][k]
        angle = math.radians(random.uniform(-45, 45, 1)[0])
        weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
        out = np.zeros_like(x)
        for row, column in np.ndindex(32, 32):
            for i, weight in enumerate(weights):
                r = row + math.ceil(i * math.sin(angle) - 0.5)
                c = column + math.ceil(i * math.cos(angle) - 0.5)
                out[row, column] += weight / sum(weights) * x[min(max(r, 0), 31), min(max(c, 0), 31)]
        return out
    if name == "fog":
        c, decay = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][k]
        return (x + c * plasma(1, 32, decay, random)[0][..., None]) * x.max() / (x.max() + c)
    if name == "brightness":
        c = [0.05, 0.1, 0.15, 0.2, 0.3][k]
        return hsv(x, lambda h, s, v: (h, s, min(v + c, 1)))
    if name == "saturate":
        a, b = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][k]
        return hsv(x, lambda h, s, v: (h, min(max(s * a + b, 0), 1), v))
    if name == "contrast":
        return np.stack([(c - c.mean()) * [0.75, 0.5, 0.4, 0.3, 0.15][k] + c.mean() for c in x.transpose(2, 0, 1)], 2)
    if name == "defocus blur":
        radius, alias = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][k]
        disk = np.array([[float(a * a + b * b <= radius**2) for a in range(-8, 9)] for b in range(-8, 9)])
        side = math.exp(-1 / (2 * alias**2))
        taps = np.array([side, 1, side]) / (1 + 2 * side)
        kernel = ndimage.convolve(disk / disk.sum(), taps[:, None] * taps[None], mode="constant")
        return np.stack([ndimage.convolve(channel, kernel, mode="mirror") for channel in x.transpose(2, 0, 1)], 2)
    assert name == "original"
    return x


WRITTEN_OUT = sorted(set(CORRUPTIONS) - {"frost", "snow", "spatter", "jpeg", "pixelate", "elastic"})


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_the_batch_is_the_formula_of_one_image(name: str) -> None:
    for level in LEVELS:
        x = picture(level)
        expected = replica(name, x[0], level, drawn())
        np.testing.assert_allclose(CORRUPTIONS[name](x, level, drawn())[0], expected, atol=1e-9)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_seeded_keeps_its_input_and_grows_with_the_level(name: str) -> None:
    images = (np.concatenate([picture(k) for k in range(6)]) * 255).astype(np.uint8)
    before = images.copy()
    far = []
    for level in LEVELS:
        one, two = (corrupt(images, name, level, drawn()) for _ in range(2))
        assert np.array_equal(one, two)
        far.append(np.abs(one.astype(float) - images).mean())
    assert np.array_equal(images, before)
    assert (max(far) == 0) == (name == "original")
    assert far[4] >= far[0] or name == "elastic", "whose affine map is largest at level 1"


@pytest.mark.parametrize(("name", "quality"), [("jpeg", [80, 65, 58, 50, 40])])
def test_jpeg_is_pillows(name: str, quality: list[int], tmp_path: Path) -> None:
    x = picture()
    for level in LEVELS:
        Image.fromarray(np.rint(x[0] * 255).astype(np.uint8)).save(tmp_path / "x.jpg", quality=quality[level - 1])
        expected = np.asarray(Image.open(tmp_path / "x.jpg"))
        assert np.array_equal(np.rint(CORRUPTIONS[name](x, level, drawn())[0] * 255), expected)


def test_pixelate_has_as_many_shades_as_boxes() -> None:
    for level, side in zip(LEVELS, (30, 28, 27, 24, 20), strict=True):
        found = CORRUPTIONS["pixelate"](picture(), level, drawn())[0]
        assert len({row.tobytes() for row in found}) <= 2 * side
        assert abs(found.mean() - picture().mean()) < 0.01


def test_plasma_is_diamond_square_on_a_torus() -> None:
    """The same draws in the same order, point by point."""
    random, size = drawn(), 8
    grid = np.zeros((size, size))
    step, wibble = size, 100.0
    while step >= 2:
        half, n = step // 2, size // step
        noise = wibble * random.uniform(-wibble, wibble, (1, n, n))[0]
        for i, j in np.ndindex(n, n):
            corners = [(i * step + a) % size for a in (0, step)], [(j * step + b) % size for b in (0, step)]
            grid[i * step + half, j * step + half] = sum(grid[r, c] for r in corners[0] for c in corners[1]) / 4
            grid[i * step + half, j * step + half] += noise[i, j]
        for down, right in ((0, half), (half, 0)):
            noise = wibble * random.uniform(-wibble, wibble, (1, n, n))[0]
            for i, j in np.ndindex(n, n):
                r, c = i * step + down, j * step + right
                around = ((r - half, c), (r + half, c), (r, c - half), (r, c + half))
                grid[r, c] = sum(grid[a % size, b % size] for a, b in around) / 4 + noise[i, j]
        step, wibble = half, wibble / 2.5
    grid -= grid.min()
    np.testing.assert_allclose(plasma(1, size, 2.5, drawn())[0], grid / grid.max(), atol=1e-12)


def test_elastic_without_displacement_is_an_affine_map_of_three_points() -> None:
    """At level 1 nothing but the map is left; a linear ramp shows where each pixel comes from."""
    column = np.tile(np.arange(32.0), (32, 1))
    x = np.stack([column, column.T, column], -1)[None] / 31
    found = corruptions.elastic(x, 1, drawn())[0]
    points = np.array([[26, 26], [26, 6], [6, 6]], float)
    moved = points + drawn().uniform(-32 * 0.08, 32 * 0.08, (1, 3, 2))[0]
    matrix = np.linalg.solve(np.column_stack([points, np.ones(3)]), moved)  # source (x, y, 1) -> target
    back = np.linalg.inv(np.column_stack([matrix, [0, 0, 1]]))
    for row, col in ((16, 16), (10, 20), (20, 9)):
        sx, sy, _ = np.array([col, row, 1.0]) @ back
        np.testing.assert_allclose(found[row, col, :2] * 31, [sx, sy], atol=1e-9)


def test_snow_falls_and_whitens() -> None:
    dark = np.full((4, 32, 32, 3), 0.1)
    found = corruptions.snow(dark, 5, drawn())
    base = 0.8 * 0.1 + 0.2 * max(0.1, 0.1 * 1.5 + 0.5)
    assert found.min() == pytest.approx(base), "where no flake falls"
    assert found.max() > base + 0.1
    flakes = found - base
    np.testing.assert_allclose(flakes, flakes[:, ::-1, ::-1], atol=1e-12)


def test_mud_and_water_have_their_colours() -> None:
    grey = np.full((8, 32, 32, 3), 0.5)
    mud = corruptions.spatter(grey, 5, drawn())
    assert np.abs(mud - np.array([63, 42, 20]) / 255).sum(-1).min() < 0.05
    water = corruptions.spatter(grey, 3, drawn()) - 0.5
    wet = water.max(-1) > 0.05
    assert 0 < wet.mean() < 0.6
    np.testing.assert_allclose(water[wet][:, 0] / water[wet][:, 1], 175 / 238, atol=1e-6)


def test_frost_is_made_here_or_taken_from_pictures(tmp_path: Path) -> None:
    grey = np.full((3, 32, 32, 3), 0.5)
    made = frost(grey, 5, drawn())
    assert made.min() >= 0.75 * 0.5
    assert made.max() <= 0.75 * 0.5 + 0.45
    with pytest.raises(ZooError, match=r"frost1\.png cannot be read"):
        frost_pictures(tmp_path)
    for name in ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"):
        Image.new("RGB", (300, 250), (255, 255, 255)).save(tmp_path / name)
    np.testing.assert_allclose(frost(grey, 5, drawn(), frost_pictures(tmp_path)), 0.75 * 0.5 + 0.45, atol=0.01)
