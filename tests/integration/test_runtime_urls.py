"""Access by URLs signed for one object each, on a real S3 store."""

from __future__ import annotations

import io
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator, Split, serve_socket
from tidemill_runtime.contract import Access, InputFormat, InputObject, Lease, PartTarget, ResultFormat

if TYPE_CHECKING:
    from obstore.store import S3Store

    from tests.conftest import S3Bucket

obstore = pytest.importorskip("obstore")  # not where the runtime's own tests run with its few dependencies alone
store_classes = pytest.importorskip("obstore.store")
pyarrow = pytest.importorskip("pyarrow")
parquet_files = pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.s3

ECHO = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]): return batch
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rows_of(done: Coordinator, name: str) -> list[Any]:
    return [json.loads(line) for line in done.results()[name].splitlines()]


class SignedCoordinator(Coordinator):
    """Leases URLs instead of paths; parts are fetched from the store to be checked."""

    store: S3Store

    def lease(self, split: Split) -> Lease:
        lease = super().lease(split)
        name = f"parts/{lease.part.name}"
        url = obstore.sign(self.store, "PUT", name, timedelta(minutes=5))
        part = PartTarget(lease.part.name, Access("url", url))
        return Lease(lease.split, lease.fence, lease.objects, lease.start, lease.stop, lease.cursor, part)

    def accept(self, split: Split, commit: object) -> None:
        part = commit.part  # type: ignore[attr-defined]
        (self.parts / part).write_bytes(bytes(self.store.get(f"parts/{part}").bytes()))
        super().accept(split, commit)  # type: ignore[arg-type]


@pytest.fixture
def store(request: pytest.FixtureRequest) -> S3Store:
    if not os.environ.get("TIDEMILL_TEST_S3"):
        pytest.skip("no S3 store to test on")
    s3: S3Bucket = request.getfixturevalue("s3")  # asked for late: the runtime's own tests run without the conftest
    return store_classes.S3Store(
        s3.bucket,
        endpoint=s3.endpoint,
        access_key_id=s3.key,
        secret_access_key=s3.secret,
        region=s3.region,
        client_options={"allow_http": True},
    )


def signed(bucket: S3Store, bench: Bench) -> SignedCoordinator:
    objects = []
    for ordinal, each in enumerate(bench.objects()):
        put = bucket.put(f"in/{each.name}", Path(each.get.location).read_bytes())
        url = obstore.sign(bucket, "GET", f"in/{each.name}", timedelta(minutes=5))
        objects.append(InputObject(ordinal, each.name, each.size, str(put["e_tag"]), Access("url", url)))
    found = SignedCoordinator(bench.root / "parts", [Split(no, [each]) for no, each in enumerate(objects)])
    found.store = bucket
    return found


def drive(bench: Bench, coordinator: Coordinator, expect: int = 0, **changes: object) -> None:
    with bench.instance(coordinator, 60, **changes) as process:
        serve_socket(coordinator, process.channel, 60)  # type: ignore[attr-defined]
        assert process.wait(30) == expect, bench.log()


def test_signed_urls(bench: Bench, store: S3Store) -> None:
    bench.model(ECHO).file("名 a#%+.jsonl", "".join(f'{{"i": {i}}}\n' for i in range(20_000)))
    coordinator = signed(store, bench)
    listed = coordinator.splits[0].objects[0]
    size = listed.size
    coordinator.splits = [Split(no, [listed], size * no // 3, size * (no + 1) // 3) for no in range(3)]
    drive(bench, coordinator, millicores=2000)
    assert rows_of(coordinator, listed.name) == [{"i": i} for i in range(20_000)]


def test_parquet_by_url(bench: Bench, store: S3Store) -> None:
    out = io.BytesIO()
    table = pyarrow.table({"id": range(3000), "t": [f"t{i}" for i in range(3000)]})
    parquet_files.write_table(table, out, row_group_size=1000)
    bench.model(ECHO).file("a.parquet", out.getvalue())
    coordinator = signed(store, bench)
    drive(bench, coordinator, input=InputFormat("parquet", columns=["id"]))
    assert rows_of(coordinator, "a.parquet") == [{"id": i} for i in range(3000)]


def test_files_by_url_are_brought_and_removed(bench: Bench, store: S3Store) -> None:
    bench.model("""
        import os
        class Model:
            def load(self): pass
            def predict(self, path): return [os.path.basename(path), open(path).read()]
    """)
    for number in range(5):
        bench.file(f"d/{number}.bin", str(number))
    coordinator = signed(store, bench)
    coordinator.splits = [Split(0, [split.objects[0] for split in coordinator.splits])]
    coordinator.file_records = True
    drive(bench, coordinator, input=InputFormat("file"), result=ResultFormat(form="named"))
    assert [row["prediction"] for row in rows_of(coordinator, "part")] == [  # type: ignore[index,call-overload]
        [f"{number}.bin", str(number)] for number in range(5)
    ]
    assert not list((bench.root / "instance/scratch").iterdir())


def test_an_object_that_was_replaced(bench: Bench, store: S3Store) -> None:
    bench.model(ECHO).file("a.jsonl", '{"i": 1}\n')
    coordinator = signed(store, bench)
    store.put("in/a.jsonl", b'{"i": 2}\n')
    drive(bench, coordinator, expect=3)
    assert coordinator.fault is not None
    assert coordinator.fault.kind == "input_changed"
