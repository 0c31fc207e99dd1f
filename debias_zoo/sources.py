"""Where a data set's files come from: downloads that resume, are checked and are unpacked into their place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from . import __version__
from .errors import ZooError
from .store import cannot_write, make_folder

BLOCK = 1 << 20
SECONDS = 30.0
"""How long a server may be silent."""

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")

Report = Callable[[int, int], None]
"""Told how many bytes of how many are there; 0 for how many: not known."""


class Source(BaseModel):
    """One file of a data set, and where it can be had.

    Attributes:
        file: its name. urls: where it can be had, one after the other is tried.
        digest: ``sha256:...`` or ``md5:...`` of the file, where that is public; empty: not known.
        size: in bytes, 0: not known.
        strip: leading folders inside an archive that are dropped; archives are unpacked into the data set's folder.
        marker: what is there once an archive is unpacked, relative to the data set's folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    urls: tuple[str, ...]
    digest: str = ""
    size: int = 0
    strip: int = 0
    marker: str = ""

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked."""
        return bool(self.marker)

    def there(self, folder: Path) -> bool:
        """Whether what it brings lies in the data set's ``folder``."""
        return (folder / (self.marker or self.file)).exists()


def get(source: Source, folder: Path, report: Report | None = None) -> None:
    """Bring a source into a data set's folder: what is there stays, what broke off goes on.

    Raises:
        ZooError: no address gave it (each with its reason), its checksum differs, or it cannot be written.
    """
    if source.there(folder):
        return
    make_folder(folder)
    file = folder / source.file
    if not file.exists():
        download(source, file, report)
    if source.is_archive:
        unpack(file, folder, source.strip)
        if not source.there(folder):
            raise ZooError(f"{file} does not hold {source.marker}: it is another archive than expected; it stays there")
        file.unlink()


def download(source: Source, target: Path, report: Report | None = None) -> None:
    """Fetch a file from the first address that gives it; a part left by an earlier try is gone on with."""
    part = target.with_name(f"{target.name}.part")
    reasons = []
    for url in source.urls:
        try:
            _fetch(url, part, source.size, report)
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
            continue
        except OSError as error:
            raise cannot_write(part, error, "; choose another place with --data-root") from error
        if source.digest and (wrong := differs(part, source.digest)):
            part.unlink()
            reasons.append(f"{url}: {wrong}")
            continue
        part.replace(target)
        return
    kept = f" {part.stat().st_size} bytes are kept: the same command goes on from there." if part.exists() else ""
    raise ZooError(f"{source.file} could not be fetched.{kept} {'; '.join(reasons)}")


def _fetch(url: str, part: Path, size: int, report: Report | None) -> None:
    """Append to ``part`` what is missing of ``url``."""
    have = part.stat().st_size if part.exists() else 0
    if size and have == size:
        return
    headers = {"User-Agent": f"debias-zoo/{__version__}", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        answer: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # all of it is there
            return
        raise
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        have = have if answer.status == 206 else 0
        left = int(answer.headers.get("Content-Length") or 0)
        total = have + left if left else size
        while block := answer.read(BLOCK):
            file.write(block)
            have += len(block)
            if report is not None:
                report(have, total)
    if total and have < total:
        raise ConnectionError(f"broke off at {have} of {total} bytes")


def differs(file: Path, digest: str) -> str:
    """Why a file is not the one with ``digest`` (``sha256:...`` or ``md5:...``), or empty."""
    kind, _, wanted = digest.partition(":")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, kind).hexdigest()
    return "" if found == wanted else f"{kind} of {file.name} is {found}, not {wanted}"


def unpack(archive: Path, folder: Path, strip: int = 0) -> None:
    """Unpack a tar or zip archive into ``folder``, without its first ``strip`` folders; nothing lands outside.

    It is unpacked beside its place and moved there, so that half an archive is never taken for a whole one.
    """
    beside = folder / f".unpacking-{archive.name}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(beside)  # leaves out drives, roots and ".." itself
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(beside, filter="data")
        else:
            raise ZooError(f"{archive} is no tar or zip archive")
        for path in _inside(beside, strip):
            _move(path, folder / path.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ZooError(f"{archive} cannot be unpacked ({error}): delete it and fetch it again") from error
    except OSError as error:
        raise cannot_write(beside, error, "; choose another place with --data-root") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _inside(folder: Path, strip: int) -> Sequence[Path]:
    found = sorted(folder.iterdir())
    for _ in range(strip):
        found = sorted(path for outer in found if outer.is_dir() for path in outer.iterdir())
    return found


def _move(path: Path, target: Path) -> None:
    """Move a file or a folder; a folder that is there already receives what is in the other."""
    if path.is_dir() and target.is_dir():
        for inner in path.iterdir():
            _move(inner, target / inner.name)
    else:
        os.replace(path, target)
