"""Files written beside their place and moved there, whole or not at all; what is said where nothing can be written."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from .errors import ZooError


def make_folder(path: Path, advice: str = "; choose another place with --out") -> None:
    """Make a folder, or raise a ZooError that says why not, with what would help."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error, advice) from error


def check_writable(path: Path) -> None:
    """Raise a ZooError if nothing can be written below ``path``."""
    make_folder(path)
    probe = path / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise cannot_write(path, error, "; choose another place with --out") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one untouched."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a whole file, or leave the old one untouched."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            _write_all(file, content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # the first error tells more
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def _write_all(file: IO[bytes], content: bytes | memoryview) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError, advice: str = "") -> ZooError:
    """The error for a file that cannot be written: a full disk, or another reason with what would help."""
    if error.errno == errno.ENOSPC:
        return ZooError(
            f"no space left to write {path}; what is finished is kept: free some space and run the same again"
        )
    return ZooError(f"cannot write {path}: {error.strerror or error}{advice}")
