"""Archives of models: what is read of good ones, and that hostile ones are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.domain.errors import InvalidValue, TidemillError, TooLarge
from tidemill.domain.package import PackageFile
from tidemill.store import archives
from tidemill.store.archives import read_archive, without_wrapper

LIMIT = 10_000_000


def contents(path: Path, limit_bytes: int = LIMIT) -> dict[str, bytes]:
    return {member.path: b"".join(member.content) for member in read_archive(path, limit_bytes=limit_bytes)}


def tar_of(path: Path, build: Callable[[tarfile.TarFile], None], *, pack: Callable[[bytes], bytes] = bytes) -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        build(archive)
    path.write_bytes(pack(raw.getvalue()))
    return path


def member(name: str, data: bytes = b"x", **fields: object) -> Callable[[tarfile.TarFile], None]:
    def build(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in fields.items():
            setattr(info, key, value)
        archive.addfile(info, io.BytesIO(data))

    return build


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["tar", "gz", "bz2", "xz"])
def test_tar(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    def build(archive: tarfile.TarFile) -> None:
        member("./batch/model_service.py", b"class Model: ...")(archive)
        member("model/权重 1.bin", b"\0" * 3_000_000)(archive)
        member("batch/__pycache__/x.pyc")(archive)

    found = contents(tar_of(tmp_path / "a", build, pack=pack))
    assert found == {"batch/model_service.py": b"class Model: ...", "model/权重 1.bin": b"\0" * 3_000_000}


def test_zip_with_modes(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        program = zipfile.ZipInfo("run.sh")
        program.external_attr = (stat.S_IFREG | 0o755) << 16
        archive.writestr(program, "#!/bin/sh")
        archive.writestr("model/", "")
        archive.writestr("model/w", "1")
    found = [(one.path, one.executable, b"".join(one.content)) for one in read_archive(path, limit_bytes=LIMIT)]
    assert found == [("run.sh", True, b"#!/bin/sh"), ("model/w", False, b"1")]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("../evil", {}),
        ("/etc/evil", {}),
        ("a/../../evil", {}),
        ("a\\b", {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "a", "size": 0}),
        ("device", {"type": tarfile.CHRTYPE, "size": 0}),
        ("pipe", {"type": tarfile.FIFOTYPE, "size": 0}),
        ("../folder", {"type": tarfile.DIRTYPE, "size": 0}),
    ],
)
def test_hostile_tar_members(tmp_path: Path, name: str, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidValue):
        contents(tar_of(tmp_path / "a.tar", member(name, **fields)))


def test_symlink_and_climbing_in_zip(tmp_path: Path) -> None:
    for name, mode in (("link", stat.S_IFLNK | 0o777), ("../evil", stat.S_IFREG), ("/evil", stat.S_IFREG)):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, "/etc/passwd")
        with pytest.raises(InvalidValue):
            contents(path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tar_of(tmp_path / "a.tgz", member("zeros", b"\0" * 5_000_000), pack=gzip.compress)
    assert bomb.stat().st_size < 10_000
    with pytest.raises(TooLarge, match="more than 1000000 bytes"):
        contents(bomb, limit_bytes=1_000_000)
    monkeypatch.setattr(archives, "RATIO_FROM_BYTES", 1_000_000)
    with pytest.raises(TooLarge, match="200 times"):
        contents(bomb)
    ignored = tar_of(tmp_path / "b.tgz", member("__pycache__/zeros", b"\0" * 5_000_000), pack=gzip.compress)
    with pytest.raises(TooLarge):
        contents(ignored, limit_bytes=1_000_000)
    monkeypatch.setattr(archives, "FILES_MAX", 2)
    many = tar_of(tmp_path / "c.tar", lambda archive: [member(str(n))(archive) for n in range(3)] and None)
    with pytest.raises(TooLarge, match="more than 2 files"):
        contents(many)


def test_huge_extended_header(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {"comment": "x" * (archives.HEADER_BYTES_MAX + 1)}
        archive.addfile(info)
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(raw.getvalue()))
    with pytest.raises(TooLarge, match="header"):
        contents(path)


@pytest.mark.parametrize("damage", ["text", "empty", "cut gz", "cut zip", "zip with a password bit"])
def test_damaged(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a"
    if damage == "text":
        path.write_text("this is no archive at all " * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut gz":
        import random

        noise = random.Random(1).randbytes(100_000)
        whole = tar_of(path, member("a", noise), pack=gzip.compress).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "x" * 1000)
        data = bytearray(path.read_bytes())
        if damage == "cut zip":
            data = data[50:]
        else:
            data[6] |= 1
            data[data.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(bytes(data))
    with pytest.raises(TidemillError) as raised:
        contents(path)
    assert raised.value.remedy


def test_wrapping_folder_is_taken_off() -> None:
    def files(*paths: str) -> list[PackageFile]:
        return [PackageFile(path, "0" * 64, 0) for path in paths]

    assert [f.path for f in without_wrapper(files("churn/batch/m.py", "churn/w"))] == ["batch/m.py", "w"]
    for kept in (("batch/m.py",), ("model/w", "model/x"), ("a/x", "b/x"), ("a/x", "y")):
        assert [f.path for f in without_wrapper(files(*kept))] == list(kept)
