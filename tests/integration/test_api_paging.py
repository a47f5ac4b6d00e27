"""Long lists, page by page: a page reads what is on it, not what was on the pages before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import FakeEngine
from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue
from tidemill.domain.ids import TaskId
from tidemill.domain.life import TaskStatus
from tidemill.domain.location import Location, parse_location
from tidemill.objects.local import LocalObjects
from tidemill.ports.objects import ObjectInfo
from tidemill.services.access import ROOT_ACCOUNT, Actor
from tidemill.services.objects import ObjectAccess
from tidemill.services.regions import Region
from tidemill.services.results import Results, _Output
from tidemill.wire.views import Page

ROOT = Actor(ROOT_ACCOUNT, "root", operator=True)
COUNT = 5000


class CountingObjects(LocalObjects):
    """Counts what is listed and read."""

    def __init__(self) -> None:
        super().__init__(None)
        self.listed = 0
        self.read_from: list[int] = []

    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        for found in super().list(folder, after):
            self.listed += 1
            yield found

    def stream(self, location: Location, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self.read_from.append(start)
        return super().stream(location, start, stop)


@pytest.fixture
def objects() -> CountingObjects:
    return CountingObjects()


def regions(objects: CountingObjects) -> dict[str, Region]:
    return {"local": Region("local", objects, FakeEngine(), ())}


def walked(ask: Callable[[str | None], Page[Any]], before: Callable[[], None] = lambda: None) -> Iterator[Page[Any]]:
    cursor = None
    while True:
        before()
        page = ask(cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def test_a_page_of_objects_lists_what_is_on_it(tmp_path: Path, objects: CountingObjects) -> None:
    names = sorted(
        [f"{n % 7}/{n:05d}" for n in range(COUNT // 2)]
        + [f"a-{n:05d}" for n in range(COUNT // 2)]
        + ["a/x", "a/y/z", "a", "名/1"],
        key=str.encode,
    )
    names.remove("a")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    access = ObjectAccess(regions(objects), limit_bytes=1)
    found: list[str] = []
    for page in walked(lambda cursor: access.list(ROOT, "local", f"{tmp_path}/", 100, cursor)):
        found += [item.name for item in page.items]
        assert objects.listed <= 101
        objects.listed = 0
    assert found == names


class Finished(Results):
    """Over a folder that is the output of a finished task, or of one that is not."""

    def __init__(self, objects: CountingObjects, folder: Path) -> None:
        super().__init__(None, {})  # type: ignore[arg-type] - no database is asked
        self.objects = objects
        self.folder = parse_location(f"{folder}/", field="x")

    def _output(self, actor: Actor, task: TaskId) -> _Output:
        class Row:
            id = task
            failed = COUNT
            status = TaskStatus.SUCCEED

        return _Output(Row(), Row(), self.objects, self.folder, True)  # type: ignore[arg-type]


@pytest.fixture
def finished(tmp_path: Path, objects: CountingObjects) -> Finished:
    account = {"inputs": 1, "ok": 1, "failed": 0, "skipped": 0}
    header = json.dumps({"task": "t"})
    lines = [
        json.dumps({"name": f"名 {n}.out.jsonl", "size": n, "sha256": "0", "counts": account}) for n in range(COUNT)
    ]
    (tmp_path / layout.MARKER).write_text("\n".join([header, *lines]) + "\n")
    error = {"object": "a.jsonl", "fault": "model_error", "type": "E", "message": "m" * 1000, "traceback": ""}
    error |= {"attempts": 1, "input": None}
    errors = [json.dumps({**error, "line": n, "fingerprint": str(n % 2)}) for n in range(1, COUNT + 1)]
    (tmp_path / layout.ERRORS).write_text("\n".join(errors) + "\n")
    (tmp_path / layout.RECEIPT).write_text("{}")
    return Finished(objects, tmp_path)


@pytest.mark.parametrize("limit", [1000, 999, COUNT, COUNT + 1])
def test_a_page_of_results_begins_where_the_last_ended(finished: Finished, limit: int) -> None:
    task = TaskId("t")
    pages = list(walked(lambda cursor: finished.list(ROOT, task, limit, cursor), finished.objects.read_from.clear))
    names = [item.name for page in pages for item in page.items]
    assert names == [*(f"名 {n}.out.jsonl" for n in range(COUNT)), layout.ERRORS, layout.RECEIPT, layout.MARKER]
    size = (Path(finished.folder.key) / layout.MARKER).stat().st_size
    finished.objects.read_from.clear()
    if len(pages) > 2:
        assert pages[-2].next_cursor is not None
        finished.list(ROOT, task, limit, pages[-2].next_cursor)
        assert all(start > 0.7 * size for start in finished.objects.read_from)


@pytest.mark.parametrize("fingerprint", [None, "1"])
def test_a_page_of_errors_begins_where_the_last_ended(finished: Finished, fingerprint: str | None) -> None:
    lines: list[int | None] = []
    starts = []
    cursors: list[str] = []
    for page in walked(lambda cursor: finished.errors(ROOT, TaskId("t"), fingerprint, 500, cursor)):
        lines += [item.line for item in page.items]
        starts.append(finished.objects.read_from[-1])
        cursors.append(page.next_cursor or "")
    assert lines == list(range(1, COUNT + 1, 1 if fingerprint is None else 2))
    assert len(set(starts)) == len(starts)
    assert starts == sorted(starts)


def test_downloading_all_results_reads_the_list_of_them_once(finished: Finished) -> None:
    folder = Path(finished.folder.key)
    for n in range(50):
        (folder / f"名 {n}.out.jsonl").touch()
        finished.open(ROOT, TaskId("t"), f"名 {n}.out.jsonl")
    assert len(finished.objects.read_from) == 1


@pytest.mark.parametrize("cursor", ["WzUsLTIsN10", "Wy0xLC0yLDBd", "WzEsLTQsMF0", "WzFd", "x"])
def test_a_cursor_that_no_page_gave_is_refused(finished: Finished, cursor: str) -> None:
    with pytest.raises(InvalidValue, match="not a cursor"):
        finished.list(ROOT, TaskId("t"), 10, cursor)
    with pytest.raises(InvalidValue, match="not a cursor"):
        finished.errors(ROOT, TaskId("t"), None, 10, cursor)
