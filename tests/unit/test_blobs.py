"""Content-addressed storage on real files."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from tidemill.domain.errors import InvalidValue, NotFound, TooLarge
from tidemill.domain.package import PackageFile
from tidemill.store.blobs import Blobs


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def age(folder: Path) -> None:
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            os.utime(Path(root) / name, (1, 1))


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path, limit_bytes=1000)


def package(blobs: Blobs, **contents: bytes) -> str:
    files = []
    for name, data in contents.items():
        blobs.put([data], sha(data))
        files.append(PackageFile(name, sha(data), len(data), executable=name.startswith("run")))
    return blobs.put_package(files)


def test_put_and_size(blobs: Blobs) -> None:
    assert blobs.size(sha(b"abc")) is None
    assert blobs.put([b"a", b"bc"], sha(b"abc")) == 3
    assert blobs.put([b"abc"], sha(b"abc")) == 3
    assert blobs.size(sha(b"abc")) == 3
    assert blobs.path(sha(b"abc")).read_bytes() == b"abc"


def test_wrong_digest_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="digest"):
        blobs.put([b"abc"], sha(b"abd"))
    assert blobs.size(sha(b"abd")) is None
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


def test_limit(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        blobs.put([b"x" * 600, b"x" * 600], sha(b"x" * 1200))
    with pytest.raises(TooLarge):
        blobs.writer(sha(b""), size=1001)
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("text", ["", "abc", "A" * 64, "../" + "0" * 61, "0" * 65])
def test_only_digests_name_blobs(blobs: Blobs, text: str) -> None:
    with pytest.raises(InvalidValue):
        blobs.size(text)


def test_package_needs_its_blobs(blobs: Blobs) -> None:
    with pytest.raises(NotFound, match="'a' is not uploaded"):
        blobs.put_package([PackageFile("a", sha(b"abc"), 3)])
    blobs.put([b"abc"], sha(b"abc"))
    with pytest.raises(InvalidValue, match="3 bytes long, not 4"):
        blobs.put_package([PackageFile("a", sha(b"abc"), 4)])


def test_materialise_is_read_only_and_shared(blobs: Blobs, tmp_path: Path) -> None:
    digest = package(blobs, w=b"weights", run_sh=b"#!", 模型=b"1")
    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(blobs.materialise(digest))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(folders) == {tmp_path / "packages" / digest}
    folder = folders[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "w": b"weights",
        "run_sh": b"#!",
        "模型": b"1",
    }
    assert (folder / "w").stat().st_mode & 0o777 == 0o444
    assert (folder / "run_sh").stat().st_mode & 0o777 == 0o555
    assert (folder / "w").stat().st_ino == blobs.path(sha(b"weights")).stat().st_ino
    assert not [path for path in (tmp_path / "packages").iterdir() if path.name.startswith(".")]
    with pytest.raises(NotFound):
        blobs.materialise("0" * 64)


def test_sweep_takes_only_what_is_old_and_unwanted(blobs: Blobs, tmp_path: Path) -> None:
    kept = package(blobs, a=b"1", b=b"2")
    dropped = package(blobs, b=b"2", c=b"3")
    blobs.materialise(kept)
    blobs.materialise(dropped)
    with blobs.writer(sha(b"4")) as unfinished:
        unfinished.write(b"4")
        assert blobs.sweep(lambda: [kept], older_than_s=3600) == []
        age(tmp_path)
        assert blobs.size(sha(b"3")) == 1  # somebody is about to use it
        removed = blobs.sweep(lambda: [kept], older_than_s=3600)
    assert sorted(word.split()[0] for word in removed) == ["blob", "package", "upload"]
    assert blobs.size(dropped) is None
    assert [blobs.size(sha(data)) for data in (b"1", b"2", b"3")] == [1, 1, 1]
    assert (blobs.materialise(kept) / "a").read_bytes() == b"1"
    with pytest.raises(NotFound):
        blobs.materialise(dropped)
