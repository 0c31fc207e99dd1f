"""Downloads: resumed where they broke off, checked, unpacked whole or not at all. The server is on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from debias_zoo import sources
from debias_zoo.errors import ZooError
from debias_zoo.sources import Source, get

BODY = bytes(range(256)) * 400


class Server:
    """Serves ``BODY``; breaks off after ``breaks`` bytes as often as that list is long."""

    def __init__(self) -> None:
        self.body, self.breaks, self.ranges = BODY, list[int](), list[str | None]()
        self.understands_ranges, self.tag = True, ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *given: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        unlike = request.headers.get("If-Range") not in (None, self.tag)
        start = (
            0
            if unlike
            else int(asked.removeprefix("bytes=").removesuffix("-"))
            if asked and self.understands_ranges
            else 0
        )
        if start >= len(self.body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(self.body) - start))
        if self.tag:
            request.send_header("ETag", self.tag)
        request.end_headers()
        request.wfile.write(self.body[start : self.breaks.pop(0) if self.breaks else None])


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    source = Source(file="a.bin", urls=(server.url,), digest=sha(BODY))
    told: list[tuple[int, int]] = []
    get(source, tmp_path, lambda done, total: told.append((done, total)))
    get(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert len(server.ranges) == 1


def test_what_broke_off_goes_on(server: Server, tmp_path: Path) -> None:
    source = Source(file="a.bin", urls=(server.url,), digest=sha(BODY))
    server.breaks = [1000, 5000]
    for kept in (1000, 5000):
        with pytest.raises(ZooError, match=f"{kept} bytes are kept: the same command goes on"):
            get(source, tmp_path)
        assert not (tmp_path / "a.bin").exists()
    get(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert server.ranges == [None, "bytes=1000-", "bytes=5000-"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.understands_ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"old")
    get(Source(file="a.bin", urls=(server.url,)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_a_whole_part_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(BODY)
    get(Source(file="a.bin", urls=(server.url,), digest=sha(BODY)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_the_next_address_is_tried(server: Server, tmp_path: Path) -> None:
    get(Source(file="a.bin", urls=("http://127.0.0.1:9/none", server.url)), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_another_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    source = Source(file="a.bin", urls=(server.url,), digest=f"md5:{'0' * 32}")
    with pytest.raises(ZooError, match=r"md5 of a\.bin\.part is .*, not 0000"):
        get(source, tmp_path / "data")
    assert not list(tmp_path.iterdir()), "a wrong file is not gone on with, and no empty folder is left"


def test_another_file_at_the_same_address_is_not_spliced(server: Server, tmp_path: Path) -> None:
    source = Source(file="a.bin", urls=(server.url,))
    (tmp_path / "a.bin.part").write_bytes(BODY + b"longer")
    with pytest.raises(ZooError, match="is longer than the file: it starts again"):
        get(source, tmp_path)
    server.tag, server.breaks = '"old"', [1000]
    with pytest.raises(ZooError, match="1000 bytes are kept"):
        get(source, tmp_path)
    server.tag, server.body = '"new"', BODY[::-1]
    get(source, tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == BODY[::-1]
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_tar_with_a_damaged_header_is_refused(server: Server, tmp_path: Path) -> None:
    whole = bytearray(gzip.decompress(archive("tar.gz", {f"train/{k}.txt": b"x" * 600 for k in range(5)})))
    whole[1536 * 3 + 150] ^= 0xFF  # in the checksum of the fourth header
    server.body = gzip.compress(bytes(whole))
    with pytest.raises(ZooError, match="damaged or broken off"):
        get(Source(file="x.tar.gz", urls=(server.url,), marker="train"), tmp_path)
    assert not (tmp_path / "train").exists()


def archive(kind: str, names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as zipped:
            for name, content in names.items():
                zipped.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for name, content in names.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_is_unpacked_into_its_place(kind: str, server: Server, tmp_path: Path) -> None:
    server.body = archive(kind, {"top/train/a.txt": b"a", "top/test/b.txt": b"b"})
    source = Source(file=f"x.{kind}", urls=(server.url,), strip=1, marker="train")
    get(source, tmp_path)
    get(source, tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        *("test", "test/b.txt", "train", "train/a.txt")
    ]
    assert len(server.ranges) == 1


def test_nothing_lands_outside(server: Server, tmp_path: Path) -> None:
    names = {"../../evil.txt": b"x", "train/a.txt": b"a"}
    server.body = archive("tar.gz", names)
    with pytest.raises(ZooError, match="cannot be unpacked"):
        get(Source(file="x.tar.gz", urls=(server.url,), marker="train"), tmp_path / "inner" / "tar")
    server.body = archive("zip", names)
    get(Source(file="x.zip", urls=(server.url,), marker="train"), tmp_path / "inner" / "zip")
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("evil.txt")] == [("inner", "zip")]


def test_a_damaged_archive_leaves_nothing_half(server: Server, tmp_path: Path) -> None:
    server.body = archive("zip", {"train/a.txt": BODY})[:-200]
    with pytest.raises(ZooError, match="is no tar or zip archive"):
        get(Source(file="x.zip", urls=(server.url,), marker="train"), tmp_path)
    assert not (tmp_path / "train").exists()


def test_another_archive_is_named(server: Server, tmp_path: Path) -> None:
    server.body = archive("zip", {"other/a.txt": b"a"})
    with pytest.raises(ZooError, match=r"does not hold train: it is another archive"):
        get(Source(file="x.zip", urls=(server.url,), marker="train"), tmp_path)


def test_a_full_disk_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sources, "_fetch", full)
    with pytest.raises(ZooError, match="no space left"):
        get(Source(file="a.bin", urls=(server.url,)), tmp_path)
