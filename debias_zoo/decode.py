"""Image files decoded once into one file of uint8 rows: in parallel, resumable, shared between runs.

A cache lies in ``$DEBIAS_ZOO_CACHE`` (default ``~/.cache/debias-zoo``) under a name that covers the files' names, sizes
and times and how they are scaled. It counts as made when its ``done.json`` is there, which is written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .cache import alone, cache_folder
from .errors import ZooError
from .writing import cannot_write, make_folder, write_text

FORMAT = 1
"""Raised when the same files and steps give other pixels."""

CHUNK = 64
"""Images decoded at a time by one thread."""

MAPPED_BYTES = 512 * 2**20
"""Larger files are read row by row, so that memory stays flat; smaller ones are mapped."""

Images = npt.NDArray[np.uint8]
Step = tuple[Literal["squash", "short", "centre"], int]
"""``squash``: scale to a square, whatever the shape; ``short``: scale the shorter side; ``centre``: cut a square."""

Report = Callable[[int, int], None]
"""Told how many of how many images are decoded."""

_UNDONE, _DONE, _CORRUPT = 0, 1, 2


class RowFile:
    """uint8 (N, H, W, C) in a file, of which rows are read when they are asked for.

    Args:
        path: raw bytes, row after row. shape: (H, W, C). rows: int64 (N,), those of the file that count.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, path: Path, shape: tuple[int, int, int], rows: npt.NDArray[np.int64]) -> None:
        self.path, self.rows, self.shape = path, rows, (len(rows), *shape)
        self._descriptor = os.open(path, os.O_RDONLY)  # kept open: the file may be replaced
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Images:
        """The rows of a slice, or of int64 (B,)."""
        wanted = self.rows[rows]
        found = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        size = int(np.prod(self.shape[1:]))
        for image, row in zip(found, wanted, strict=True):
            if os.preadv(self._descriptor, [memoryview(image.data).cast("B")], int(row) * size) != size:
                raise ZooError(f"{self.path} is shorter than it should be: delete its folder and run again")
        return found


@dataclass(frozen=True)
class Decoded:
    """What a list of image files became.

    Attributes:
        images: uint8 (N, H, W, 3), mapped into memory, or read row by row where they are many.
        kept: int64 (N,), the positions in the list that the rows come from: those that could be decoded.
    """

    images: Images | RowFile
    kept: npt.NDArray[np.int64]


def decoded(
    files: Sequence[Path], steps: Sequence[Step], *, skip_corrupt: bool = False, report: Report | None = None
) -> Decoded:
    """The pixels of ``files``, RGB, scaled by ``steps``; decoded at the first call, read from the cache at others.

    Raises:
        ZooError: a file is missing or cannot be decoded (with ``skip_corrupt``, the latter are left out), or the cache
            cannot be written.
    """
    if not files:
        return Decoded(np.empty((0, 1, 1, 3), np.uint8), np.empty(0, np.int64))
    folder = cache_folder() / fingerprint(files, steps)
    if _made(folder, len(files)) is None:
        make_folder(folder)
        with alone(folder):
            if _made(folder, len(files)) is None:
                (folder / "done.json").unlink(missing_ok=True)
                _Building(folder, files, steps).run(report)
    return _read(folder, files, skip_corrupt)


def _made(folder: Path, count: int) -> dict[str, Any] | None:
    """What ``done.json`` says, or None where it or the pixels are missing or damaged."""
    try:
        known: dict[str, Any] = json.loads((folder / "done.json").read_text())
        size = (folder / "images.u8").stat().st_size
        whole = size == count * int(np.prod(known["shape"])) and isinstance(known["corrupt"], list)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if whole else None


def fingerprint(files: Sequence[Path], steps: Sequence[Step]) -> str:
    """Sixteen hex digits that change with the files' names, sizes and times, and with the steps."""
    digest = hashlib.blake2b(json.dumps([FORMAT, list(steps)]).encode(), digest_size=8)
    for file in files:
        try:
            found = file.stat()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            raise ZooError(f"image {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if not stat.S_ISREG(found.st_mode):
            raise ZooError(f"image {file} is no file")
        digest.update(f"{os.path.abspath(file)}\x1f{found.st_size}\x1f{found.st_mtime_ns}\x1e".encode())
    return digest.hexdigest()


def decode(file: Path, steps: Sequence[Step]) -> Images:
    """uint8 (H, W, 3) of one file. Raises whatever Pillow raises for a file that is damaged."""
    from PIL import Image

    with Image.open(file) as opened:
        return scaled(opened, steps)


def scaled(opened: Any, steps: Sequence[Step]) -> Images:
    """uint8 (H, W, 3) of one of Pillow's images. Raises a ValueError for pixels that have no known range."""
    from PIL import Image

    image = _eight_bits(opened).convert("RGB")
    for kind, size in steps:
        width, height = image.size
        if kind == "squash":
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        elif kind == "short":
            factor = size / min(width, height)
            image = image.resize((round(width * factor), round(height * factor)), Image.Resampling.BILINEAR)
        else:
            left, top = (width - size) // 2, (height - size) // 2
            image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, dtype=np.uint8)


def _eight_bits(image: Any) -> Any:
    """An image whose ``convert("RGB")`` keeps its shades: of sixteen bits the upper eight; others are refused."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range")
    return image


class _Building:
    """A cache while it is made: rows in ``images.part``, and for each image in ``state.part`` whether it is done."""

    def __init__(self, folder: Path, files: Sequence[Path], steps: Sequence[Step]) -> None:
        self.folder, self.files, self.steps = folder, files, steps
        self.shape = self._first_shape()
        self.size = int(np.prod(self.shape))

    def _first_shape(self) -> tuple[int, ...]:
        for file in self.files:
            try:
                return decode(file, self.steps).shape
            except Exception:  # named below, with all others
                continue
        raise ZooError(f"none of {len(self.files)} images can be decoded; the first is {self.files[0]}")

    def run(self, report: Report | None) -> None:
        """Decode what is not yet decoded, then say that all is done."""
        part, state = self.folder / "images.part", self.folder / "state.part"
        if not part.exists():
            state.unlink(missing_ok=True)  # of another part, which is not there any more
        try:
            with _opened(part, len(self.files) * self.size) as rows, _opened(state, len(self.files)) as flags:
                self._decode_all(rows, flags, report)
                os.fsync(rows)
                found = os.pread(flags, len(self.files), 0)
            part.replace(self.folder / "images.u8")
        except OSError as error:
            raise cannot_write(part, error, "; choose another place with DEBIAS_ZOO_CACHE") from error
        corrupt = [k for k, flag in enumerate(found) if flag == _CORRUPT]
        write_text(self.folder / "done.json", json.dumps({"shape": self.shape, "corrupt": corrupt}))
        state.unlink(missing_ok=True)

    def _decode_all(self, rows: int, flags: int, report: Report | None) -> None:
        before = os.pread(flags, len(self.files), 0)
        left = [k for k, flag in enumerate(before) if flag == _UNDONE]
        chunks = [left[k : k + CHUNK] for k in range(0, len(left), CHUNK)]
        done = len(self.files) - len(left)
        with ThreadPoolExecutor(_threads()) as pool:  # Pillow decodes and scales without Python's lock
            for count in pool.map(lambda chunk: self._decode_chunk(chunk, rows, flags), chunks):
                done += count
                if report is not None:
                    report(done, len(self.files))

    def _decode_chunk(self, chunk: list[int], rows: int, flags: int) -> int:
        for k in chunk:
            flag = _DONE
            try:
                image = decode(self.files[k], self.steps)
                if image.shape != self.shape:
                    raise ValueError(f"it is {image.shape}")
            except Exception as error:  # a damaged file may make Pillow raise anything
                if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                    raise ZooError(
                        f"image {self.files[k]} cannot be read: {error}"
                    ) from error  # no fault of its content
                flag = _CORRUPT
            else:
                os.pwrite(rows, image.tobytes(), k * self.size)
            os.pwrite(flags, bytes([flag]), k)
        return len(chunk)


@contextmanager
def _opened(path: Path, size: int) -> Iterator[int]:
    """A file of this size, opened to read and write; its space is reserved at once."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        os.ftruncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(folder: Path, files: Sequence[Path], skip_corrupt: bool) -> Decoded:
    known = _made(folder, len(files))
    if known is None:
        raise ZooError(f"{folder} was changed by another process: run the same again")
    corrupt = known["corrupt"]
    if corrupt and not skip_corrupt:
        names = ", ".join(str(files[k]) for k in corrupt[:5]) + (", ..." if len(corrupt) > 5 else "")
        raise ZooError(
            f"{len(corrupt)} of {len(files)} images cannot be decoded: {names}. Replace them, or leave them out with "
            "--skip-corrupt (or the parameter skip_corrupt=true)"
        )
    kept = np.setdiff1d(np.arange(len(files)), corrupt)
    path, shape = folder / "images.u8", tuple(known["shape"])
    if len(files) * np.prod(shape) > MAPPED_BYTES:
        return Decoded(RowFile(path, shape, kept), kept)
    images = np.memmap(path, np.uint8, "c", shape=(len(files), *shape))  # copy on write: torch wants to be able to
    return Decoded(images[kept] if corrupt else images, kept)
