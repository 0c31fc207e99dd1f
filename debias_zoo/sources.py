"""Where a data set's files come from: downloads that resume, are checked and are unpacked into their place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from . import __version__
from .errors import ZooError
from .writing import cannot_write, make_folder

BLOCK = 1 << 20
SECONDS = 30.0
"""How long a server may be silent."""

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
    try:
        if not file.exists():
            download(source, file, report)
    finally:
        with suppress(OSError):  # it is not empty, as a rule
            folder.rmdir()
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
        part.with_name(f"{part.name}.etag").unlink(missing_ok=True)
        return
    kept = f" {part.stat().st_size} bytes are kept: the same command goes on from there." if part.exists() else ""
    raise ZooError(f"{source.file} could not be fetched.{kept} {'; '.join(reasons)}")


def _fetch(url: str, part: Path, size: int, report: Report | None) -> None:
    """Append to ``part`` what is missing of ``url``."""
    have = part.stat().st_size if part.exists() else 0
    if size and have == size:
        return
    answer = _asked(url, part, have)
    if answer is None:
        return
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


def _asked(url: str, part: Path, have: int) -> HTTPResponse | None:
    """The answer to a request for what is missing, or None where nothing is."""
    headers = {"User-Agent": f"debias-zoo/{__version__}"}
    mark = part.with_name(f"{part.name}.etag")
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.exists():  # where the file has changed, the server sends all of the new one
            headers["If-Range"] = mark.read_text()
    try:
        answer: HTTPResponse = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        if (error.headers.get("Content-Range") or f"/{have}").endswith(f"/{have}"):
            return None
        part.unlink()
        raise ConnectionError("the part that was here is longer than the file: it starts again") from error
    if tag := answer.headers.get("ETag"):
        mark.write_text(tag)
    return answer


def differs(file: Path, digest: str) -> str:
    """Why a file is not the one with ``digest`` (``sha256:...`` or ``md5:...``), or empty."""
    kind, _, wanted = digest.partition(":")
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, kind).hexdigest()
    return "" if found == wanted else f"{kind} of {file.name} is {found}, not {wanted}"


def unpack(archive: Path, folder: Path, strip: int = 0) -> None:
    """Unpack a tar or zip archive into ``folder``, without its first ``strip`` folders; nothing lands outside.

    It is unpacked beside its place and moved there when all of it could be read.
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
                _read_to_its_end(tar)
        else:
            raise ZooError(f"{archive} is no tar or zip archive")
        for path in _inside(beside, strip):
            _move(path, folder / path.name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, zlib.error) as error:
        raise ZooError(f"{archive} cannot be unpacked ({error}): delete it and fetch it again") from error
    except OSError as error:
        raise cannot_write(beside, error, "; choose another place with --data-root") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read_to_its_end(tar: tarfile.TarFile) -> None:
    """Raise where a tar does not end as one: tarfile takes a damaged header for the end."""
    source: IO[bytes] = tar.fileobj  # type: ignore[assignment]
    source.seek(tar.offset)
    end = source.read(tarfile.BLOCKSIZE)
    while source.read(BLOCK):  # a compressed one is checked at its end
        pass
    if end.strip(b"\0") or not end:
        raise tarfile.ReadError("it is damaged or broken off")


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
