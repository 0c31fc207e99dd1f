"""Image corruptions of Hendrycks and Dietterich (ICLR 2019, arXiv:1903.12261) for 32 x 32 images, a batch at a time.

Each function takes images float64 (N, H, W, 3) in [0, 1], a level from 1 to 5 and a generator, and gives the same
shape; ``corrupt`` clips. Parameters and formulas are those of the authors' CIFAR-10-C code as LfF uses it
(``data/corrupted_cifar10_protocol.py``). Differences, each small: bilinear sampling is exact where OpenCV rounds
to 1/32 pixel; the distance transform of ``spatter`` is exact; motion blur is written out from ImageMagick's definition
and not rounded to bytes in between. ``frost`` needs pictures that cannot be shipped: see there.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy import ndimage

from debias_zoo.dataset import Images
from debias_zoo.errors import ZooError

from .filters import (
    Floats,
    Random,
    as_bytes,
    box_mean,
    edges,
    equalised,
    filtered,
    gaussian,
    plasma,
    sampled,
    smeared,
    zoomed,
)

CHUNK = 512
"""Images corrupted at a time."""

LEAST_FROST = 32
"""A picture of frost has more pixels each way, at a fifth of its size."""

ROUNDING = 1e-9
"""Added before a value is rounded down, so that a whole number stays one whatever the version of SciPy."""

GREY = np.array([0.299, 0.587, 0.114])
"""Weights of R, G and B in brightness, as OpenCV has them."""


def corrupt(images: Images, name: str, level: int, random: Random, frost_dir: Path | None = None) -> Images:
    """Corrupt uint8 (N, 32, 32, 3) at ``level`` 1 ... 5; clipped and rounded down to uint8, as in LfF's files."""
    how = partial(frost, pictures=frost_pictures(frost_dir)) if name == "frost" else CORRUPTIONS[name]
    found = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK] / 255.0
        found[start : start + CHUNK] = (np.clip(how(part, level, random), 0.0, 1.0) * 255.0).astype(np.uint8)
    return found


# --- noise


def gaussian_noise(x: Floats, level: int, random: Random) -> Floats:
    """X + N(0, c^2)."""
    return x + random.normal(scale=(0.04, 0.06, 0.08, 0.09, 0.10)[level - 1], size=x.shape)


def shot_noise(x: Floats, level: int, random: Random) -> Floats:
    """Poisson(c x) / c."""
    c = (500, 250, 100, 75, 50)[level - 1]
    return random.poisson(x * c) / c


def impulse_noise(x: Floats, level: int, random: Random) -> Floats:
    """A share c of all values becomes 0 or 1, each as often."""
    hit = random.random(x.shape) < (0.01, 0.02, 0.03, 0.05, 0.07)[level - 1]
    return np.where(hit, random.random(x.shape) < 0.5, x)


def speckle_noise(x: Floats, level: int, random: Random) -> Floats:
    """X + x N(0, c^2)."""
    return x + x * random.normal(scale=(0.06, 0.1, 0.12, 0.16, 0.2)[level - 1], size=x.shape)


# --- blur


def gaussian_blur(x: Floats, level: int, random: Random) -> Floats:
    """Convolved with a Gaussian of c pixels."""
    return gaussian(x, (0.4, 0.6, 0.7, 0.8, 1.0)[level - 1])


def defocus_blur(x: Floats, level: int, random: Random) -> Floats:
    """Convolved with a disk, itself smoothed by a Gaussian of three taps."""
    radius, alias = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[level - 1]
    grid = np.arange(-8, 9)
    disk = (grid[:, None] ** 2 + grid[None] ** 2 <= radius**2).astype(np.float64)
    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / (2 * alias**2))
    kernel = disk / disk.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, taps / taps.sum(), axis, mode="mirror")
    return filtered(x, kernel)


def glass_blur(x: Floats, level: int, random: Random) -> Floats:
    """Blurred, each pixel replaced by a near one from the lower right on, blurred again.

    The authors mean to swap two pixels; what their code does, and the files show, is to copy one over the other.
    """
    sigma, reach, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[level - 1]
    size, rows = x.shape[1], np.arange(len(x))
    pixels = np.floor(gaussian(x, sigma) * 255.0 + ROUNDING)
    for _ in range(rounds):
        for h in range(size - reach, reach, -1):
            for w in range(size - reach, reach, -1):
                dx, dy = random.integers(-reach, reach, (2, len(x)))
                pixels[:, h, w] = pixels[rows, h + dy, w + dx]
    return gaussian(pixels / 255.0, sigma)


def motion_blur(x: Floats, level: int, random: Random) -> Floats:
    """Smeared in a direction within 45 degrees of the horizontal."""
    radius, sigma = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[level - 1]
    return smeared(x, radius, sigma, random.uniform(-45, 45, len(x)))


def zoom_blur(x: Floats, level: int, random: Random) -> Floats:
    """Mean of the image and of enlarged ones."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[level - 1], 0.01)
    return (x + sum(zoomed(x, factor) for factor in factors)) / (len(factors) + 1)


# --- weather


def fog(x: Floats, level: int, random: Random) -> Floats:
    """(x + c0 plasma) max(x) / (max(x) + c0)."""
    c, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[level - 1]
    most = x.max((1, 2, 3), keepdims=True)
    return np.asarray((x + c * plasma(len(x), x.shape[1], decay, random)[..., None]) * most / (most + c))


def frost(x: Floats, level: int, random: Random, pictures: list[Floats] | None = None) -> Floats:
    """c0 x + c1 frost, with a random part of one of the authors' pictures.

    The pictures cannot be shipped. Without them (``frost_dir``) the frost is made here: ridges of a plasma fractal,
    white with a blue tinge. It is another corruption than the published one.
    """
    c0, c1 = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[level - 1]
    size = x.shape[1]
    if not pictures:
        ridges = 1.0 - np.abs(2.0 * plasma(len(x), size, 1.6, random) - 1.0)
        return np.asarray(c0 * x + c1 * (ridges[..., None] ** 2 * np.array([0.85, 0.92, 1.0])))
    crops = np.empty_like(x)
    for crop in crops:
        picture = pictures[random.integers(len(pictures))]
        top, left = (random.integers(0, side - size) for side in picture.shape[:2])
        crop[:] = picture[top : top + size, left : left + size]
    return c0 * x + c1 * crops


def frost_pictures(folder: Path | None) -> list[Floats]:
    """The authors' first five pictures at a fifth of their size, ``frost1.png`` to ``frost5.jpg``; none for None."""
    if folder is None:
        return []
    found = []
    for name in ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"):
        try:
            with Image.open(folder / name) as picture:
                # as OpenCV's bilinear scaling to a fifth, which takes every fifth pixel
                small = np.asarray(picture.convert("RGB"))[2::5, 2::5]
        except OSError as error:
            raise ZooError(f"frost_dir: {folder / name} cannot be read: {error}") from error
        if min(small.shape[:2]) <= LEAST_FROST:
            raise ZooError(f"frost_dir: {folder / name} is too small: {small.shape[1]} x {small.shape[0]} at a fifth")
        found.append(small / 255.0)
    return found


def snow(x: Floats, level: int, random: Random) -> Floats:
    """A whitened image with streaks of snow from both sides."""
    mean, deviation, zoom, least, radius, sigma, keep = (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    )[level - 1]
    layer = zoomed(random.normal(mean, deviation, x.shape[:3])[..., None], zoom)
    layer[layer < least] = 0.0
    layer = np.floor(np.clip(layer, 0.0, 1.0) * 255.0) / 255.0
    layer = smeared(layer, radius, sigma, random.uniform(-135, -45, len(x)))
    whitened = np.maximum(x, (x @ GREY)[..., None] * 1.5 + 0.5)
    return np.asarray(keep * x + (1.0 - keep) * whitened + layer + layer[:, ::-1, ::-1])


def spatter(x: Floats, level: int, random: Random) -> Floats:
    """Drops of water (levels 1 to 3) or of mud (4, 5) where smoothed noise is high."""
    mean, deviation, sigma, least, strength = (
        (0.62, 0.1, 0.7, 0.7, 0.5),
        (0.65, 0.1, 0.8, 0.7, 0.5),
        (0.65, 0.3, 1.0, 0.69, 0.5),
        (0.65, 0.1, 0.7, 0.69, 0.6),
        (0.65, 0.1, 0.5, 0.68, 0.6),
    )[level - 1]
    liquid = gaussian(random.normal(mean, deviation, x.shape[:3])[..., None], sigma)[..., 0]
    liquid[liquid < least] = 0.0
    if level > 3:
        mud = gaussian((liquid > least).astype(np.float64)[..., None], strength)
        mud[mud < 0.8] = 0.0
        return x * (1.0 - mud) + mud * (np.array([63.0, 42.0, 20.0]) / 255.0)
    water = np.stack([_water(np.floor(np.clip(layer, 0, 1) * 255.0)) for layer in liquid])[..., None]
    return x + strength * water * (np.array([175.0, 238.0, 238.0]) / 255.0)


def _water(liquid: Floats) -> Floats:
    """(H, W) in [0, 1]: drops with a lit rim, from their edges' distance. liquid: whole numbers 0 ... 255."""
    rims = edges(liquid, 50.0, 150.0)
    far = ndimage.distance_transform_edt(~rims) if rims.any() else np.full(liquid.shape, 20.0)
    distance = np.floor(box_mean(np.minimum(far, 20.0)))
    emboss = np.array([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    lit = np.clip(ndimage.correlate(equalised(distance), emboss, mode="mirror"), 0.0, 255.0)
    drops = liquid * np.rint(box_mean(lit))
    most = drops.max()
    return drops / most if most > 0 else drops


# --- digital


def brightness(x: Floats, level: int, random: Random) -> Floats:
    """The value of HSV grows by c."""
    hsv = rgb_to_hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1], 0.0, 1.0)
    return hsv_to_rgb(hsv)


def saturate(x: Floats, level: int, random: Random) -> Floats:
    """The saturation s of HSV becomes c0 s + c1."""
    factor, offset = ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))[level - 1]
    hsv = rgb_to_hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * factor + offset, 0.0, 1.0)
    return hsv_to_rgb(hsv)


def contrast(x: Floats, level: int, random: Random) -> Floats:
    """(x - mean) c + mean, by channel."""
    means = x.mean((1, 2), keepdims=True)
    return np.asarray((x - means) * (0.75, 0.5, 0.4, 0.3, 0.15)[level - 1] + means)


def jpeg(x: Floats, level: int, random: Random) -> Floats:
    """Compressed with quality c."""
    quality = (80, 65, 58, 50, 40)[level - 1]

    def through(image: Images) -> Images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer))

    return np.stack([through(image) for image in as_bytes(x)]) / 255.0


def pixelate(x: Floats, level: int, random: Random) -> Floats:
    """Scaled down to a share c of its sides and up again, by boxes."""
    size = x.shape[1]
    small = int(size * (0.95, 0.9, 0.85, 0.75, 0.65)[level - 1])

    def through(image: Images) -> Images:
        shrunk = Image.fromarray(image).resize((small, small), Image.Resampling.BOX)
        return np.asarray(shrunk.resize((size, size), Image.Resampling.BOX))

    return np.stack([through(image) for image in as_bytes(x)]) / 255.0


def elastic(x: Floats, level: int, random: Random) -> Floats:
    """A random affine map of three points, then random displacements smoothed by a Gaussian."""
    n, size = x.shape[:2]
    shares = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[level - 1]
    alpha, sigma, affine = (size * share for share in shares)
    high, low = size // 2 + size // 3, size // 2 - size // 3
    points = np.array([[high, high], [high, low], [low, low]], np.float64)
    moved = points + random.uniform(-affine, affine, (n, 3, 2))
    ones = np.ones((n, 3, 1))
    back = np.linalg.solve(
        np.concatenate([moved, ones], 2), np.broadcast_to(points, (n, 3, 2))
    )  # (N, 3, 2): to sources
    column, row = np.meshgrid(np.arange(size), np.arange(size))
    grid = np.stack([column, row, np.ones_like(row)], -1).reshape(1, -1, 3)  # (1, H W, 3)
    source = (grid @ back).reshape(n, size, size, 2)
    bent = sampled(x, source[..., 1], source[..., 0], "mirror")
    shifts = random.uniform(-1, 1, (2, n, size, size))
    if alpha:
        shifts = ndimage.gaussian_filter(shifts, (0, 0, sigma, sigma), mode="reflect", truncate=3.0)
    return sampled(bent, row + alpha * shifts[1], column + alpha * shifts[0], "reflect")


CORRUPTIONS: dict[str, Callable[[Floats, int, Random], Floats]] = {
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "spatter": spatter,
    "elastic": elastic,
    "jpeg": jpeg,
    "pixelate": pixelate,
    "saturate": saturate,
    "gaussian noise": gaussian_noise,
    "shot noise": shot_noise,
    "impulse noise": impulse_noise,
    "speckle noise": speckle_noise,
    "gaussian blur": gaussian_blur,
    "defocus blur": defocus_blur,
    "glass blur": glass_blur,
    "motion blur": motion_blur,
    "zoom blur": zoom_blur,
    "original": lambda x, level, random: x,
}
"""By name: first LfF's type 0, then its type 1, each in the order of the classes they are tied to."""
