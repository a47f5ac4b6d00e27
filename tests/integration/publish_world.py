"""A planned run whose splits are computed by hand, for the tests of publishing.

The parts are written by the runtime's own PartWriter and committed to the file journal; what a model would do is one
rule: a line is doubled, `poison` fails, a blank line is skipped. `python -m tests.integration.publish_world WORLD.json`
publishes a world in a process of its own, to be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidemill.domain import layout
from tidemill.domain.ids import TaskId
from tidemill.domain.location import Location, parse_location
from tidemill.domain.plan import Plan
from tidemill.domain.receipt import InputAccount, Receipt
from tidemill.domain.splits import Cut, Layout, PlannedSplit, plan_splits
from tidemill.local.journal import FileJournal
from tidemill.objects.listing import listing_line, read_listing
from tidemill.objects.region import open_region
from tidemill.ports.journal import Granted
from tidemill.ports.objects import Objects
from tidemill.publishing.publisher import Finished, Publisher
from tidemill.publishing.signing import SERVER, Signer
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret
from tidemill_runtime.contract import Access, Commit, Counts, Cursor, PartTarget, Report, ResultFormat
from tidemill_runtime.isolation import Failure
from tidemill_runtime.sink import PartWriter

TASK = TaskId("batch-test")
POISON = Failure("model_error", "ValueError", "poison", 'File "m.py", line 3', 2)


@dataclass(frozen=True)
class Place:
    """Where a world is, so that another process can open it. s3: bucket, endpoint, key, secret."""

    root: str
    output: str
    s3: tuple[str, str, str, str] | None = None

    def open(self) -> tuple[Objects, Location]:
        buckets = {}
        if self.s3:
            bucket, endpoint, key, secret = self.s3
            buckets["data"] = BucketSection(
                url=f"s3://{bucket}", endpoint=endpoint, access_key=key, secret_key=Secret(secret), region="us-east-1"
            )
        objects = open_region(buckets, Path(self.root), local_paths=True)
        return objects, parse_location(self.output, field="output")


@dataclass
class World:
    place: Place
    objects: Objects
    output: Location
    plan: Plan
    journal: FileJournal
    inputs: dict[str, bytes]

    def publisher(self, **options: bool) -> Publisher:
        result = ResultFormat(layout=self.plan.layout.value)
        sign = Signer(Path(self.place.root) / "receipt-key.pem", SERVER).sign
        return Publisher(self.journal, self.objects, self.plan, self.output, TASK, result, sign=sign, **options)

    def receipt(self) -> Receipt:
        account = InputAccount("/in/", self.plan.objects, self.plan.bytes, self.plan.listing_sha256)
        return Receipt(
            TASK, f"{TASK}-r1", "test", "SUCCEED", "operator", "local", account, created=1.0, finished=2.0, runs=("r1",)
        )

    def run_to_end(self) -> Finished:
        publisher = self.publisher()
        while publisher.publish_ready(3):
            pass
        return publisher.finish(self.receipt())

    def results(self) -> dict[str, bytes]:
        """Everything in the output folder but staging."""
        found = [info.name for info in self.objects.list(self.output)]
        return {
            name: self.objects.read(self.output.child(name)) for name in found if not name.startswith(layout.STAGING)
        }

    def staged(self) -> list[str]:
        return [info.name for info in self.objects.list(self.output) if info.name.startswith(layout.STAGING)]

    def save(self, path: Path) -> None:
        values = {"place": vars(self.place), "journal": str(self.journal.path)}
        path.write_text(json.dumps(values))

    def compute(self, *, records_per_part: int = 1_000_000, only: int | None = None) -> None:
        """Computes and commits what is open. only: that many splits."""
        left = sys.maxsize if only is None else only
        while left:
            found = self.journal.exchange(_report(), limit=1, now=0.0, ttl_s=60.0)
            if not found.granted:
                return
            _Instance(self, found.granted[0], records_per_part).work()
            left -= 1

    def part_locations(self) -> list[Location]:
        folder = self.output.child(layout.parts_folder(TASK))
        return [folder.child(info.name) for info in self.objects.list(folder)]


def make_world(place: Place, inputs: dict[str, bytes], cut: Cut, kind: Layout) -> World:
    """Lists and plans `inputs`; the input objects themselves are not needed by anybody but the instance below."""
    objects, output = place.open()
    names = sorted(inputs, key=str.encode)
    listing = output.child(layout.listing_name(TASK))
    lines = [listing_line_of(name, len(inputs[name])) for name in names]
    objects.put(listing, b"".join(lines))
    total = sum(map(len, inputs.values()))
    splits = list(
        plan_splits(read_listing(objects, listing), cut, kind, total_objects=len(names), total_bytes=total, processes=8)
    )
    input_type = "file" if cut is Cut.FILES else "jsonl"
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    plan = Plan(listing, len(names), total, len(splits), splits[-1].unit + 1, cut, kind, digest, input_type)
    path = Path(place.root) / "journal.jsonl"
    header = {"cut": cut.value, "layout": kind.value, "objects": len(names), "bytes": total, "splits": len(splits)}
    header |= {"units": plan.units, "input_type": input_type, "listing_sha256": digest}
    journal = FileJournal.create(path, header, splits, run="r1")
    return World(place, objects, output, plan, journal, inputs)


def open_world(path: Path) -> World:
    values = json.loads(path.read_text())
    place = Place(**values["place"])
    objects, output = place.open()
    journal = FileJournal.open_(Path(values["journal"]), run="r1")
    assert journal is not None
    header = journal.header
    plan = Plan(
        output.child(layout.listing_name(TASK)),
        header["objects"],
        header["bytes"],
        header["splits"],
        header["units"],
        Cut(header["cut"]),
        Layout(header["layout"]),
        header["listing_sha256"],
        header["input_type"],
    )
    return World(place, objects, output, plan, journal, {})


def listing_line_of(name: str, size: int) -> bytes:
    from tidemill.ports.objects import ObjectInfo

    return listing_line(ObjectInfo(name, size, "etag", 0.0))


def _report(commits: list[Commit] | None = None) -> Report:
    return Report(1, "i-1", "running", commits=commits or [], want=1)


class _Instance:
    """Computes one split, with a commit after every so many records."""

    def __init__(self, world: World, granted: Granted, records_per_part: int) -> None:
        self.world = world
        self.granted = granted
        self.records_per_part = records_per_part
        self.names = sorted(world.inputs, key=str.encode)
        self.begin = Cursor()
        self.writer = self._new_writer()

    def work(self) -> None:
        split = self.granted.split
        of_files = self.world.plan.cut is Cut.FILES
        for index in range(split.objects):
            name = self.names[split.first_object + index]
            data = self.world.inputs[name]
            for line, stop in [(data, 0)] if of_files else _lines(data, split):
                self._record(index, name, line, of_files=of_files)
                if self.writer.total.inputs >= self.records_per_part:
                    self._commit(Cursor(index + 1, 0) if of_files else Cursor(index, stop), done=False)
        self._commit(Cursor(split.objects, 0), done=True)

    def _record(self, index: int, name: str, line: bytes, *, of_files: bool) -> None:
        if not of_files and not line.strip():
            self.writer.add(index, b"", ok=0, skipped=1)
        elif line.strip() == b"poison":
            place = 0 if of_files else self.writer.position(index)
            self.writer.error(index, place, POISON, line.rstrip(b"\n"))
            self.writer.add(index, b"" if of_files else b"null\n", ok=0, failed=1)
        else:
            self.writer.add(index, predict(name, line, of_files=of_files), ok=1)

    def _commit(self, end: Cursor, *, done: bool) -> None:
        state, split = self.granted.state, self.granted.split
        assert state.part is not None
        scratch = os.path.join(self.world.place.root, "part")
        with_index = split.objects > 1 and self.world.plan.cut is not Cut.FILES
        facts = self.writer.finish(PartTarget(state.part, Access("path", scratch)), with_index)
        if os.path.exists(scratch):
            part = self.world.output.child(layout.parts_folder(TASK) + state.part)
            self.world.objects.put(part, Path(scratch).read_bytes())
            os.unlink(scratch)
        facts["counts"] = Counts(**facts["counts"])
        commit = Commit(split.no, state.fence, begin=self.begin, end=end, done=done, **facts)
        found = self.world.journal.exchange(_report([commit]), limit=0, now=0.0, ttl_s=60.0)
        self.begin, self.writer = end, self._new_writer()
        if not done:
            self.granted = found.granted[0]

    def _new_writer(self) -> PartWriter:
        return PartWriter(self.world.place.root)


def predict(name: str, line: bytes, *, of_files: bool) -> bytes:
    if of_files:
        return json.dumps({"path": name, "prediction": len(line)}).encode() + b"\n"
    return line.strip() * 2 + b"\n"


def _lines(data: bytes, split: PlannedSplit) -> Iterator[tuple[bytes, int]]:
    """The lines whose first byte lies in the split's range, each with the offset after it."""
    start, stop = (0, len(data)) if split.stop == -1 else (split.start, split.stop)
    at = 0
    for line in data.splitlines(keepends=True):
        following = at + len(line)
        if start <= at < stop:
            yield line, following - start
        at = following


if __name__ == "__main__":
    world = open_world(Path(sys.argv[1]))
    world.run_to_end()
    world.publisher().clean()
