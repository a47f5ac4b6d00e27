"""What every implementation of `ports.objects` does: local folders, buckets that are folders, and S3 (a real MinIO)."""

from __future__ import annotations

import hashlib
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import S3Bucket
from tidemill.domain.errors import Conflict, InvalidValue, NotFound, PartDamaged
from tidemill.domain.location import Location, parse_location
from tidemill.objects.region import open_region
from tidemill.ports.objects import Objects, Piece
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret
from tidemill_runtime.contract import Access

NAMES = [
    "plain.jsonl",
    "with space/and more.jsonl",
    "数据/第一批 (1).jsonl",
    "p%20q",
    "p%",
    "h#1",
    "a+b",
    "q'uo\"te",
    "brackets[0]{1}",
    "star*question?",
    "back\\slash",
    "amp&=;:@,$!",
    "ünï",
    "x" * 200,
]


@dataclass(frozen=True)
class Store:
    objects: Objects
    folder: Location
    is_local: bool


@pytest.fixture(params=["folder", "bucket", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "s3":
        objects = open_region({"data": declared(request.getfixturevalue("s3"))}, tmp_path, local_paths=False)
        # A folder whose own name is awkward: prefixes have to be literal too.
        folder = parse_location(f"cos://data/{secrets.token_hex(4)} 前缀%20+#/", field="test")
        yield Store(objects, folder, is_local=False)
    elif request.param == "bucket":
        objects = open_region({"data": BucketSection()}, tmp_path, local_paths=False)
        yield Store(objects, parse_location("cos://data/in 前缀%20+#/", field="test"), is_local=True)
    else:
        objects = open_region({}, tmp_path, local_paths=True)
        yield Store(objects, parse_location(f"{tmp_path}/in 前缀%20+#/", field="test"), is_local=True)


def declared(s3: S3Bucket) -> BucketSection:
    url = f"s3://{s3.bucket}/be low"
    return BucketSection(
        url=url, endpoint=s3.endpoint, access_key=s3.key, secret_key=Secret(s3.secret), region=s3.region
    )


def names(store: Store, folder: Location | None = None) -> list[str]:
    return [found.name for found in store.objects.list(folder or store.folder)]


def fetch(access: Access) -> bytes:
    if access.kind == "path":
        return Path(access.location).read_bytes()
    with urllib.request.urlopen(access.location, timeout=10) as answer:
        data: bytes = answer.read()
        return data


def hand_in(access: Access, data: bytes) -> None:
    if access.kind == "path":
        Path(access.location).write_bytes(data)
        return
    request = urllib.request.Request(access.location, data=data, method="PUT", headers=access.headers)
    urllib.request.urlopen(request, timeout=10).close()


def compose(store: Store, target: Location, pieces: list[bytes | Piece], **options: Any) -> Any:
    return store.objects.compose(target, pieces, staging=store.folder.child("_tidemill/t/tmp"), **options)


def test_awkward_names_come_back_as_they_are(store: Store) -> None:
    for name in NAMES:
        store.objects.put(store.folder.child(name), name.encode())
    assert names(store) == sorted(NAMES, key=str.encode)
    for name in NAMES:
        location = store.folder.child(name)
        assert store.objects.read(location) == name.encode()
        found = store.objects.head(location)
        assert found is not None
        assert (found.name, found.size) == (name.rpartition("/")[2], len(name.encode()))
        assert fetch(store.objects.grant_read(location, 60)) == name.encode()
    store.objects.delete([store.folder.child(name) for name in NAMES])
    assert names(store) == []


def test_list_is_in_byte_order_of_whole_names(store: Store) -> None:
    for name in ["a/x", "a-b", "a0", "a/b/c", "a.b", "B", "中", "ü", "a/b.c"]:
        store.objects.put(store.folder.child(name), b"1")
    assert names(store) == sorted(names(store), key=str.encode)
    assert len(names(store)) == 9
    assert names(store, store.folder.child("a/")) == ["b.c", "b/c", "x"]
    assert names(store, store.folder.child("a")) == ["b.c", "b/c", "x"]
    assert names(store, store.folder.child("none/")) == []


def test_list_goes_on_after_a_name(store: Store) -> None:
    for name in ["a/x", "a-b", "a0", "a/b/c", "a.b", "B", "中/1", "ü", "a/b.c", "a%20b"]:
        store.objects.put(store.folder.child(name), b"1")
    every = names(store)
    for after in [*every, "a", "a/", "a/b", "a/b0", "", "zz", "\U0010ffff"]:
        found = [each.name for each in store.objects.list(store.folder, after)]
        assert found == [name for name in every if name.encode() > after.encode()], after


def test_list_streams(store: Store) -> None:
    store.objects.put(store.folder.child("x"), b"1")
    assert iter(store.objects.list(store.folder)) is not None
    assert not isinstance(store.objects.list(store.folder), list)


def test_empty_objects_are_objects(store: Store) -> None:
    empty = store.folder.child("empty")
    store.objects.put(empty, b"")
    assert [(found.name, found.size) for found in store.objects.list(store.folder)] == [("empty", 0)]
    assert store.objects.read(empty) == b""
    assert list(store.objects.stream(empty)) == []
    assert store.objects.head(empty) is not None
    made = compose(store, store.folder.child("out"), [Piece(empty)])
    assert (made.size, made.sha256) == (0, hashlib.sha256(b"").hexdigest())


def test_etag_tells_a_rewrite(store: Store) -> None:
    location = store.folder.child("x")
    store.objects.put(location, b"one")
    first = store.objects.head(location)
    listed = next(iter(store.objects.list(store.folder)))
    assert first is not None
    assert listed.etag == first.etag
    store.objects.put(location, b"two")
    second = store.objects.head(location)
    assert second is not None
    assert second.etag != first.etag


def test_head_of_nothing_and_of_folders(store: Store) -> None:
    store.objects.put(store.folder.child("a/b"), b"1")
    assert store.objects.head(store.folder.child("none")) is None
    assert store.objects.head(store.folder.child("a")) is None
    assert store.objects.head(store.folder.child("a/")) is None
    assert store.objects.head(store.folder.child("a/b/c")) is None
    assert store.objects.is_folder(store.folder.child("a"))
    assert store.objects.is_folder(store.folder.child("a/"))
    assert not store.objects.is_folder(store.folder.child("a/b"))
    assert not store.objects.is_folder(store.folder.child("none"))


def test_ranges(store: Store) -> None:
    location = store.folder.child("x")
    data = secrets.token_bytes(20 * 1024 * 1024)
    store.objects.put(location, (data[at : at + 3_000_000] for at in range(0, len(data), 3_000_000)))
    assert store.objects.read(location, 5, 10) == data[5:10]
    assert store.objects.read(location, len(data) - 3) == data[-3:]
    assert store.objects.read(location, len(data) - 3, len(data) + 10) == data[-3:]
    assert store.objects.read(location, len(data) + 5, len(data) + 10) == b""
    assert store.objects.read(location, 7, 7) == b""
    chunks = list(store.objects.stream(location, 1, len(data) - 1))
    assert b"".join(chunks) == data[1:-1]
    assert max(map(len, chunks)) <= 8 * 1024 * 1024
    for read in (store.objects.read, lambda where: list(store.objects.stream(where))):
        with pytest.raises(NotFound, match="none"):
            read(store.folder.child("none"))


def test_put_replaces_and_a_failing_source_changes_nothing(store: Store) -> None:
    location = store.folder.child("x")
    store.objects.put(location, b"old")

    def failing() -> Iterator[bytes]:
        yield b"n" * 10_000_000
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.objects.put(location, failing())
    assert store.objects.read(location) == b"old"
    assert names(store) == ["x"]
    store.objects.put(location, b"new")
    assert store.objects.read(location) == b"new"


def test_create_has_one_winner(store: Store) -> None:
    location = store.folder.child("deep/claim.json")
    start = threading.Barrier(8)
    won: list[int] = []

    def contend(number: int) -> None:
        start.wait()
        if store.objects.create(location, str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.objects.read(location) == str(won[0]).encode()
    assert not store.objects.create(location, str(won[0]).encode())  # the same bytes, but another's write
    assert names(store) == ["deep/claim.json"]


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_compose(store: Store, size: int) -> None:
    first, second = secrets.token_bytes(size), secrets.token_bytes(size)
    one, two = store.folder.child("_tidemill/t/parts/1"), store.folder.child("_tidemill/t/parts/2")
    store.objects.put(one, first + b"errors")
    store.objects.put(two, second)
    whole = hashlib.sha256(first + b"errors").hexdigest()
    pieces = [
        b"head",
        Piece(one, 0, size, sha256=whole, checked_stop=size + 6),
        b"",
        Piece(two, 10),
        Piece(two, 0, 0),
        Piece(two, 3, 5),
    ]
    expected = b"head" + first + second[10:] + second[3:5]
    target = store.folder.child("sub dir/结果#1.jsonl")
    made = compose(store, target, pieces)
    assert (made.size, made.sha256) == (len(expected), hashlib.sha256(expected).hexdigest())
    assert store.objects.read(target) == expected
    assert compose(store, target, pieces) == made  # again, as after a lost answer
    assert names(store) == ["_tidemill/t/parts/1", "_tidemill/t/parts/2", "sub dir/结果#1.jsonl"]

    alone = compose(store, store.folder.child("_tidemill/alone"), [pieces[1]])
    assert alone.sha256 == hashlib.sha256(first).hexdigest()
    store.objects.delete([store.folder.child("_tidemill/alone")])

    with pytest.raises(Conflict, match="other content"):
        compose(store, target, [*pieces, b"more"])
    assert store.objects.read(target) == expected
    other = compose(store, target, [*pieces, b"more"], replace=True)
    assert other.size == made.size + 4
    assert store.objects.read(target) == expected + b"more"
    assert names(store) == ["_tidemill/t/parts/1", "_tidemill/t/parts/2", "sub dir/结果#1.jsonl"]


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_compose_of_one_whole_object(store: Store, size: int) -> None:
    data = secrets.token_bytes(size)
    part, target = store.folder.child("_tidemill/t/parts/1"), store.folder.child("x.out")
    store.objects.put(part, data)
    digest = hashlib.sha256(data).hexdigest()
    for _ in range(2):
        made = compose(store, target, [Piece(part, 0, size, sha256=digest)])
        assert (made.size, made.sha256) == (size, digest)
    for _ in range(2):
        compose(store, target, [Piece(part)], replace=True)
    assert names(store) == ["_tidemill/t/parts/1", "x.out"]
    store.objects.delete_below(store.folder.child("_tidemill/"))
    store.objects.put(part, b"something else")
    assert store.objects.read(target) == data


def test_copy(store: Store) -> None:
    source, target, staging = (store.folder.child(name) for name in ("from/a", "to/a", "_tidemill/t/tmp"))
    data = b"one\n" * 100
    store.objects.put(source, data)
    known = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "staging": staging}
    for _ in range(2):  # again, as after a lost answer
        store.objects.copy(source, target, **known)
        assert store.objects.read(target) == data
    store.objects.delete([source])
    assert store.objects.read(target) == data
    with pytest.raises(PartDamaged, match="not there"):
        store.objects.copy(source, target, **known)
    store.objects.put(source, data + b"more")
    with pytest.raises(PartDamaged, match="404 bytes, not 400"):
        store.objects.copy(source, target, **known)
    store.objects.put(source, data)
    store.objects.put(target, b"another's")
    with pytest.raises(Conflict):
        store.objects.copy(source, target, **known)
    store.objects.copy(source, target, **known, replace=True)
    assert store.objects.read(target) == data
    assert [each.name for each in store.objects.list(store.folder)] == ["from/a", "to/a"]


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_compose_of_damaged_parts(store: Store, size: int) -> None:
    data = b"x" * size
    part, target = store.folder.child("part-7"), store.folder.child("x.out")
    store.objects.put(part, data)
    wrong = hashlib.sha256(b"y").hexdigest()
    right = hashlib.sha256(data).hexdigest()
    for pieces in (
        [Piece(part, 0, size, sha256=wrong)],
        [b"head", Piece(part, 0, size, sha256=wrong)],
        [Piece(part, 0, size - 5, sha256=right)],
        [Piece(part, 0, size - 5, sha256=right, checked_stop=size - 1)],
        [Piece(part, 0, size - 5, sha256=right, checked_stop=size + 1)],
        [Piece(part, 0, size + 1)],
        [b"head", Piece(part, 0, size + 1)],
    ):
        with pytest.raises(PartDamaged, match="part-7"):
            compose(store, target, pieces)
    for pieces in ([Piece(store.folder.child("part-8"), 0, size)], [Piece(store.folder.child("part-8"))]):
        with pytest.raises(PartDamaged, match="part-8"):
            compose(store, target, pieces)
    assert names(store) == ["part-7"]


@pytest.mark.parametrize("size", [1000, 9_000_000])
def test_compose_has_one_winner(store: Store, size: int) -> None:
    target = store.folder.child("x.out")
    start = threading.Barrier(4)
    outcomes: list[bytes] = []
    conflicts: list[Conflict] = []

    def contend(number: int) -> None:
        data = str(number).encode() * size
        start.wait()
        try:
            staging = store.folder.child(f"_tidemill/t/tmp-{number}")
            store.objects.compose(target, [data], staging=staging)
            outcomes.append(data)
        except Conflict as error:
            conflicts.append(error)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(outcomes), len(conflicts)) == (1, 3)
    assert store.objects.read(target) == outcomes[0]
    assert names(store) == ["x.out"]


def test_delete(store: Store) -> None:
    for name in ["a/b/c", "a/d", "ab", "e"]:
        store.objects.put(store.folder.child(name), b"1")
    store.objects.delete([store.folder.child("e"), store.folder.child("never"), store.folder.child("no/folder")])
    assert names(store) == ["a/b/c", "a/d", "ab"]
    store.objects.delete_below(store.folder.child("a"))
    assert names(store) == ["ab"]
    assert not store.objects.is_folder(store.folder.child("a"))
    store.objects.delete_below(store.folder.child("a/"))
    store.objects.delete_below(store.folder)
    assert names(store) == []
    store.objects.put(store.folder.child("again"), b"1")
    assert names(store) == ["again"]


def test_grants_are_for_one_object(store: Store) -> None:
    location = store.folder.child("_tidemill/t/parts/00000001.1.数 据")
    hand_in(store.objects.grant_write(location, 60), b"part")
    assert store.objects.read(location) == b"part"
    access = store.objects.grant_read(location, 60)
    assert fetch(access) == b"part"
    if access.kind == "url":
        with pytest.raises(urllib.error.HTTPError):
            fetch(Access("url", access.location.replace("00000001", "00000002")))
        with pytest.raises(urllib.error.HTTPError):
            hand_in(access, b"other")


def test_check_writable_leaves_nothing(store: Store) -> None:
    target = store.folder.child("out/deep/")
    store.objects.check_writable(target)
    assert names(store) == []
    assert not store.objects.is_folder(target)


def test_sync(store: Store) -> None:
    store.objects.sync(store.folder)
    store.objects.put(store.folder.child("x"), b"1")
    store.objects.sync(store.folder)


def test_climbing_names_are_refused(store: Store) -> None:
    for name in ["../x", "a/../../x", "./x", "a//b"]:
        with pytest.raises(InvalidValue):
            store.objects.put(store.folder.child(name), b"1")
        with pytest.raises(InvalidValue):
            store.objects.read(store.folder.child(name))
        with pytest.raises(InvalidValue):
            store.objects.compose(store.folder.child(name), [b"1"], staging=store.folder.child("s"))
    assert names(store) == []


def test_cos_and_s3_are_one_bucket(store: Store) -> None:
    if store.folder.bucket is None:
        return
    store.objects.put(store.folder.child("x"), b"1")
    assert store.objects.read(Location("s3", store.folder.bucket, store.folder.child("x").key)) == b"1"
