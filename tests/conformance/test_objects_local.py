"""What is particular to files: links, pipes, circles, permissions, full disks, and that a bucket is never left."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from tidemill.domain.errors import (
    Conflict,
    InvalidValue,
    NotFound,
    StorageDenied,
    StorageFull,
    TidemillError,
)
from tidemill.domain.location import Location, parse_location
from tidemill.objects import files
from tidemill.objects.files import translated
from tidemill.objects.region import open_region
from tidemill.ports.objects import Objects, Piece
from tidemill.settings import BucketSection
from tidemill_runtime.contract import local_etag

BUCKET = Location("cos", "data", "")


@pytest.fixture
def paths(tmp_path: Path) -> Objects:
    return open_region({}, tmp_path, local_paths=True)


@pytest.fixture
def bucket(tmp_path: Path) -> Objects:
    return open_region({"data": BucketSection()}, tmp_path, local_paths=False)


def at(path: Path | str) -> Location:
    return parse_location(str(path), field="test")


def names(objects: Objects, folder: Location) -> list[str]:
    return [info.name for info in objects.list(folder)]


def test_the_etag_is_the_contracts(paths: Objects, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    found = os.stat(tmp_path / "x")
    info = paths.head(at(tmp_path / "x"))
    assert info is not None
    assert info.etag == local_etag(found.st_size, found.st_mtime_ns, found.st_ino)


def test_names_that_other_stores_hide(paths: Objects, tmp_path: Path) -> None:
    wanted = ["a#1", "line\nfeed", "tab\there", "a\\b", " ", "~"]
    for name in wanted:
        (tmp_path / name).write_bytes(name.encode())
    assert names(paths, at(f"{tmp_path}/")) == sorted(wanted, key=str.encode)
    folder = at(f"{tmp_path}/")
    assert [paths.read(folder.child(name)) for name in wanted] == [name.encode() for name in wanted]


def test_names_that_are_not_utf8_are_named(paths: Objects, tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9", "wb"):
        pass
    with pytest.raises(InvalidValue, match=r"caf\\xe9"):
        names(paths, at(f"{tmp_path}/"))


def test_pipes_and_broken_links_are_no_objects(paths: Objects, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "x").write_bytes(b"1")
    assert names(paths, at(f"{tmp_path}/")) == ["x"]
    for name in ("pipe", "broken"):
        assert paths.head(at(tmp_path / name)) is None
        with pytest.raises(NotFound):
            paths.read(at(tmp_path / name))


def test_links_of_plain_paths_are_followed_but_not_in_circles(paths: Objects, tmp_path: Path) -> None:
    for name in ("in/sub", "elsewhere/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "elsewhere/deep/y").write_bytes(b"y")
    (tmp_path / "in/x").symlink_to(tmp_path / "elsewhere/deep/y")
    (tmp_path / "in/far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/sub/up").symlink_to(tmp_path / "in")
    (tmp_path / "elsewhere/deep/back").symlink_to(tmp_path / "in")
    assert names(paths, at(f"{tmp_path}/in/")) == ["far/deep/y", "x"]
    assert paths.read(at(tmp_path / "in/far/deep/y")) == b"y"


def test_nothing_leads_out_of_a_bucket(bucket: Objects, tmp_path: Path) -> None:
    root = tmp_path / "buckets/data"
    (root / "in").mkdir(parents=True)
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "key").write_bytes(b"secret")
    (root / "in/x").write_bytes(b"1")
    (root / "in/inside").symlink_to("x")
    (root / "in/key").symlink_to(outside / "key")
    (root / "in/folder").symlink_to(outside)
    (root / "sibling").mkdir()
    (tmp_path / "buckets/data2").mkdir()
    (root / "in/near").symlink_to(tmp_path / "buckets/data2")
    assert names(bucket, BUCKET) == ["in/inside", "in/x"]
    for name in ("in/key", "in/folder/key", "in/folder/new", "in/near/new"):
        where = BUCKET.child(name)
        for call in (bucket.read, bucket.head, lambda it: bucket.grant_read(it, 60)):
            with pytest.raises(StorageDenied, match="leads out"):
                call(where)
    for name in ("in/folder/new", "in/near/new", "in/folder/deep/new"):
        where = BUCKET.child(name)
        for write in (
            lambda it: bucket.put(it, b"1"),
            lambda it: bucket.create(it, b"1"),
            lambda it: bucket.grant_write(it, 60),
            lambda it: bucket.delete([it]),
            lambda it: bucket.compose(it, [b"1"], staging=BUCKET.child("s")),
            bucket.delete_below,
            bucket.check_writable,
        ):
            with pytest.raises(StorageDenied, match="leads out"):
                write(where)
    with pytest.raises(Conflict, match="link"):
        bucket.delete_below(BUCKET.child("in/folder"))
    bucket.put(BUCKET.child("in/key"), b"replaced the link, not what it led to")
    bucket.delete([BUCKET.child("in/folder")])
    bucket.delete_below(BUCKET)
    assert (outside / "key").read_bytes() == b"secret"
    assert root.is_dir()


def test_a_bucket_that_is_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    objects = open_region({"data": BucketSection(url=f"file://{tmp_path}/link")}, tmp_path, local_paths=False)
    objects.put(BUCKET.child("a/x"), b"1")
    assert names(objects, BUCKET) == ["a/x"]
    assert (tmp_path / "real/a/x").read_bytes() == b"1"


def test_writers_beside_one_who_empties_the_folder(bucket: Objects) -> None:
    """Deleting a folder's last object removes the folder; nobody else who writes there may notice."""
    failed: list[TidemillError] = []

    def write(number: int) -> None:
        try:
            for _ in range(200):
                where = BUCKET.child(f"folder/{number}")
                bucket.create(where, b"1")
                bucket.delete([where])
        except TidemillError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_file_where_a_folder_has_to_be(paths: Objects, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    for name in ("x/y", "folder"):
        with pytest.raises(Conflict):
            paths.put(at(tmp_path / name), b"2")
    assert not paths.create(at(tmp_path / "folder"), b"2")
    with pytest.raises(InvalidValue, match="is a file"):
        paths.check_writable(at(f"{tmp_path}/x/out/"))
    assert paths.head(at(tmp_path / "x/y")) is None
    assert names(paths, at(f"{tmp_path}/x/")) == []


def test_names_too_long(paths: Objects, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot be a file's name"):
        paths.put(at(tmp_path / ("x" * 300)), b"1")


def test_folders_that_permit_nothing(paths: Objects, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    me = os.geteuid()
    if me == 0:  # root may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(StorageDenied, match="closed"):
            paths.put(at(tmp_path / "closed/x"), b"1")
        with pytest.raises(StorageDenied, match="closed"):
            paths.check_writable(at(f"{tmp_path}/closed/out/"))
    finally:
        os.seteuid(me)


def test_a_read_only_file_system(paths: Objects) -> None:
    with pytest.raises(StorageDenied):
        paths.check_writable(at("/proc/tidemill/"))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, StorageDenied),
        (errno.EROFS, StorageDenied),
        (errno.ENOENT, NotFound),
    ],
)
def test_errors_of_the_system(code: int, error: type[Exception]) -> None:
    assert isinstance(translated(OSError(code, os.strerror(code)), "x"), error)


def test_a_full_disk_leaves_what_was_there(paths: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = at(tmp_path / "x")
    paths.put(where, b"old")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(StorageFull, match="No space left"):
        paths.put(where, b"new")
    with pytest.raises(StorageFull):
        paths.compose(at(tmp_path / "y"), [b"new"], staging=at(tmp_path / "s"))
    monkeypatch.undo()
    assert paths.read(where) == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_without_unnamed_files(paths: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_unnamed", lambda folder: -1)
    where, staging = at(tmp_path / "out/x"), at(tmp_path / "out/_tidemill/tmp")
    paths.put(where, b"1")
    paths.put(where, b"2")
    assert not paths.create(where, b"3")
    paths.compose(at(tmp_path / "out/y"), [b"4", Piece(where)], staging=staging)
    paths.compose(at(tmp_path / "out/y"), [b"5"], staging=staging, replace=True)
    assert names(paths, at(f"{tmp_path}/out/")) == ["x", "y"]
    assert (paths.read(where), paths.read(at(tmp_path / "out/y"))) == (b"2", b"5")
    (tmp_path / "out" / f"{files.TEMPORARY}abc").write_bytes(b"of a writer that was killed")
    assert names(paths, at(f"{tmp_path}/out/")) == ["x", "y"]


def test_a_result_is_the_staged_file_readable_for_others(paths: Objects, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_bytes(b"1")
    part.chmod(0o600)
    paths.put(at(tmp_path / "other"), b"1")
    paths.compose(at(tmp_path / "result"), [Piece(at(part))], staging=at(tmp_path / "s"))
    assert os.stat(part).st_ino == os.stat(tmp_path / "result").st_ino
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("result", "other")}
    assert len(modes) == 1


def test_paths_where_they_are_not_allowed(bucket: Objects, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cos://data/"):
        bucket.head(at(tmp_path / "x"))


def test_undeclared_buckets(bucket: Objects) -> None:
    with pytest.raises(InvalidValue, match=r"no bucket 'other'.*cos://data/"):
        bucket.head(Location("s3", "other", "x"))


def test_many_objects_are_listed_without_holding_up(paths: Objects, tmp_path: Path) -> None:
    """Not a benchmark: a folder of 20,000 must not take more than what would be noticed."""
    for number in range(20):
        (tmp_path / f"{number:02d}").mkdir()
        for name in range(1000):
            os.close(os.open(f"{tmp_path}/{number:02d}/{name}", os.O_CREAT | os.O_WRONLY))
    begun = time.monotonic()
    listing = paths.list(at(f"{tmp_path}/"))
    next(iter(listing))
    assert time.monotonic() - begun < 1
    assert sum(1 for _ in listing) == 19_999
    assert time.monotonic() - begun < 10
