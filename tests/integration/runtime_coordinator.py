"""A small coordinator for the runtime's tests: leases of local files, answers to reports, a check of every commit."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from tidemill_runtime import contract
from tidemill_runtime.contract import (
    Access,
    Channel,
    Commit,
    Cursor,
    Held,
    InputFormat,
    InputObject,
    Lease,
    Manifest,
    Orders,
    PartTarget,
    Report,
    ResultFormat,
)

PYTHON = sys.executable
GIB = 1024**3


@dataclass
class Split:
    no: int
    objects: list[InputObject]
    start: int = 0
    stop: int = -1
    cursor: Cursor = Cursor()
    fence: int = 0
    leased: bool = False
    done: bool = False
    commits: list[Commit] = field(default_factory=list)


def listed(path: Path, ordinal: int, root: Path) -> InputObject:
    stat = path.stat()
    etag = contract.local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return InputObject(ordinal, str(path.relative_to(root)), stat.st_size, etag, Access("path", str(path)))


class Coordinator:
    """splits: what is to be leased. Answers one report at a time."""

    def __init__(self, parts: Path, splits: list[Split], file_records: bool = False) -> None:
        self.parts = parts
        self.splits = splits
        self.file_records = file_records
        self.reports: list[Report] = []
        self.fault: contract.Fault | None = None
        self.directive: str | None = None
        self.refuse_commits = 0
        self.on_report: Callable[[Report], None] = lambda report: None

    def answer(self, body: bytes) -> bytes:
        report = msgspec.json.decode(body, type=Report)  # strict: every message must be the contract's
        self.reports.append(report)
        self.on_report(report)
        self.fault = report.fault or self.fault
        refused: list[Held] = []
        leases: list[Lease] = []
        for commit in report.commits:
            split = self.splits[commit.split]
            if self.refuse_commits or not split.leased or commit.fence != split.fence:
                self.refuse_commits = max(0, self.refuse_commits - 1)
                split.leased = False
                refused.append(Held(commit.split, commit.fence))
                continue
            self.accept(split, commit)
            if not split.done and self.directive is None:
                leases.append(self.lease(split))
        for held in report.held:
            split = self.splits[held.split]
            if not split.leased or held.fence != split.fence:
                refused.append(held)
        if self.directive is None:
            waiting = [each for each in self.splits if not each.leased and not each.done]
            leases += [self.lease(split) for split in waiting[: report.want]]
        finished = all(split.done for split in self.splits)
        directive = self.directive or ("finish" if finished else "work")
        return msgspec.json.encode(Orders(directive, leases, refused, report_every_s=0.2)) + b"\n"

    def lease(self, split: Split) -> Lease:
        split.fence += 1
        split.leased = True
        name = f"{split.no:08d}.{split.fence}.t"
        part = PartTarget(name, Access("path", str(self.parts / name)))
        return Lease(split.no, split.fence, split.objects, split.start, split.stop, split.cursor, part)

    def accept(self, split: Split, commit: Commit) -> None:
        assert commit.begin == split.cursor
        assert commit.end > commit.begin or commit.done
        size = commit.data_bytes + commit.errors_bytes + commit.index_bytes
        path = self.parts / commit.part
        data = path.read_bytes() if size else b""
        assert len(data) == size
        assert hashlib.sha256(data).hexdigest() == commit.sha256
        counts = commit.counts
        assert counts.inputs == counts.ok + counts.failed + counts.skipped
        split.commits.append(commit)
        split.cursor = commit.end
        split.done = commit.done
        split.leased = False

    def results(self) -> dict[str, bytes]:
        """What would be published: the result of each input object."""
        found: dict[str, bytes] = {}
        for split in self.splits:
            for commit in split.commits:
                data, _, index = self.pieces(commit)
                if not index:
                    name = (
                        "part"
                        if self.file_records
                        else split.objects[commit.begin.object if commit.done else commit.end.object].name
                    )
                    if not self.file_records and len(split.objects) > 1:
                        assert not data
                        continue
                    found[name] = found.get(name, b"") + data
                    continue
                at = 0
                for line in index.splitlines():
                    segment = msgspec.json.decode(line, type=contract.Segment)
                    name = split.objects[segment.object].name
                    found[name] = found.get(name, b"") + data[at : at + segment.data_bytes]
                    at += segment.data_bytes
                assert at == len(data)
        return found

    def errors(self) -> list[tuple[str, int, contract.ErrorRecord]]:
        """(object, row within it, record), in input order."""
        found = []
        before: dict[str, int] = {}
        for split in self.splits:
            for commit in split.commits:
                _, errors, index = self.pieces(commit)
                for line in errors.splitlines():
                    record = msgspec.json.decode(line, type=contract.ErrorRecord)
                    assert record.fault in contract.RECORD_FAULTS
                    name = split.objects[record.object].name
                    found.append((name, before.get(name, 0) + record.position, record))
                if index:
                    for line in index.splitlines():
                        segment = msgspec.json.decode(line, type=contract.Segment)
                        name = split.objects[segment.object].name
                        before[name] = before.get(name, 0) + segment.counts.inputs
                elif len(split.objects) == 1:
                    name = split.objects[0].name
                    before[name] = before.get(name, 0) + commit.counts.inputs
        return found

    def counts(self) -> contract.Counts:
        return sum((commit.counts for split in self.splits for commit in split.commits), contract.Counts())

    def pieces(self, commit: Commit) -> tuple[bytes, bytes, bytes]:
        size = commit.data_bytes + commit.errors_bytes + commit.index_bytes
        data = (self.parts / commit.part).read_bytes() if size else b""
        errors_at = commit.data_bytes
        index_at = errors_at + commit.errors_bytes
        return data[:errors_at], data[errors_at:index_at], data[index_at:]


@dataclass
class Bench:
    """A folder with a model, input, parts and an instance's own folder."""

    root: Path
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("model/batch", "input", "parts", "instance/scratch"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def model(self, source: str) -> Bench:
        (self.root / "model/batch/model_service.py").write_text(textwrap.dedent(source))
        return self

    def file(self, name: str, data: bytes | str) -> Path:
        path = self.root / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def objects(self) -> list[InputObject]:
        root = self.root / "input"
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        return [listed(path, ordinal, root) for ordinal, path in enumerate(paths)]

    def whole(self, per_split: int = 1) -> list[Split]:
        objects = self.objects()
        groups = [objects[at : at + per_split] for at in range(0, len(objects), per_split)]
        return [Split(no, group) for no, group in enumerate(groups)]

    def ranges(self, size: int) -> list[Split]:
        splits: list[Split] = []
        for each in self.objects():
            for start in range(0, each.size, size):
                splits.append(Split(len(splits), [each], start, min(each.size, start + size)))
        return splits

    def manifest(self, channel: Channel, **changes: Any) -> Manifest:
        base = Manifest(
            version=contract.CONTRACT_VERSION,
            task="task-1",
            run="run-1",
            instance="inst-1",
            channel=channel,
            model=str(self.root / "model"),
            code=None,
            command=None,
            input=InputFormat("jsonl"),
            result=ResultFormat(),
            millicores=1000,
            memory_bytes=2 * GIB,
            scratch=str(self.root / "instance/scratch"),
        )
        return replace(base, **{**self.options, **changes})

    def start(
        self, manifest: Manifest, fd: int | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        path = self.root / "instance/manifest.json"
        path.write_bytes(msgspec.json.encode(manifest))
        with (self.root / "instance/log").open("ab") as log:
            return subprocess.Popen(
                [PYTHON, "-m", "tidemill_runtime", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=() if fd is None else (fd,),
            )

    def log(self) -> str:
        return (self.root / "instance/log").read_text()

    def exit(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "instance/exit.json").read_bytes())
        return found

    def coordinator(self, splits: list[Split], **changes: Any) -> Coordinator:
        format_type = {**self.options, **changes}.get("input", InputFormat("jsonl")).type
        return Coordinator(self.root / "parts", splits, file_records=format_type == "file")

    def run(self, splits: list[Split], expect: int = 0, timeout_s: float = 60, **changes: Any) -> Coordinator:
        """One instance over a socket until it ends."""
        coordinator = self.coordinator(splits, **changes)
        with self.instance(coordinator, timeout_s, **changes) as process:
            serve_socket(coordinator, process.channel, timeout_s)  # type: ignore[attr-defined]
            code = process.wait(timeout_s)
        assert code == expect, self.log()
        assert self.exit()["code"] == code
        assert not list((self.root / "parts").glob(".*"))
        return coordinator

    @contextmanager
    def instance(
        self, coordinator: Coordinator, timeout_s: float, environment: dict[str, str] | None = None, **changes: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        manifest = self.manifest(Channel("fd", fd=theirs.fileno()), die_with_parent=True, **changes)
        process = self.start(manifest, theirs.fileno(), environment)
        theirs.close()
        process.channel = ours  # type: ignore[attr-defined]
        try:
            yield process
        finally:
            ours.close()
            process.kill()
            process.wait()


def serve_socket(coordinator: Coordinator, channel: socket.socket, timeout_s: float) -> None:
    """Answers until the instance closes its end."""
    channel.settimeout(timeout_s)
    with channel.makefile("rb") as lines:
        try:
            for line in lines:
                channel.sendall(coordinator.answer(line))
        except (ConnectionError, BrokenPipeError):
            return


class HttpDoor:
    """The runner door over real HTTP. failing: statuses to answer first; hung: requests to leave without an answer."""

    def __init__(self, coordinator: Coordinator, token: str = "secret") -> None:
        self.failing: list[int] = []
        self.tokens: list[str | None] = []
        door = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                door.tokens.append(self.headers["Authorization"])
                status, answer = 200, b"{}"
                if door.failing:
                    status = door.failing.pop(0)
                elif self.headers["Authorization"] != f"Bearer {token}" or self.path != "/runner/v1/report":
                    status = 401
                else:
                    answer = coordinator.answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> HttpDoor:  # noqa: PYI034 (Python 3.9)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def wait_until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.005)


def pids_below(pid: int) -> list[int]:
    from tidemill_runtime.memory import family

    return [each for each in family(pid) if each != pid and os.path.exists(f"/proc/{each}")]
