"""A real `tidemill serve` in a process of its own, driven through its JSON API, killed and started again.

Used by the tests here and by `soak`. Lease and report times are short, so that what a kill costs is short too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tidemill.engines import cgroups, procfs

T = TypeVar("T")
KILLS: Counter[str] = Counter()
"""Of servers and instances, in this process: what the record of a long run says."""
FINAL = {"SUCCEED", "FAILED", "STOPPED", "SUBMIT_FAILED"}
QUICK = {
    "TIDEMILL_SERVER__PORT": "0",
    "TIDEMILL_LIMITS__LEASE_TTL_S": "2",
    "TIDEMILL_LIMITS__REPORT_EVERY_S": "0.2",
    "TIDEMILL_LIMITS__COMMIT_EVERY_S": "0.2",
    "TIDEMILL_LIMITS__ORPHAN_AFTER_S": "30",
    "TIDEMILL_LIMITS__STOP_GRACE_S": "1",
}
TIDEMILL = Path(sys.executable).parent / "tidemill"
_KEPT = ("PATH", "LANG", "HOME", "VIRTUAL_ENV")


def until(look: Callable[[], T | None], what: str, within_s: float = 60.0) -> T:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"within {within_s:g} s it did not come about: {what}"
        time.sleep(0.01)
    return seen


@dataclass
class Crash:
    """Where a server stops: at a point of `tidemill.crashpoints`, dead (how="kill") or waiting ("pause")."""

    at: str
    file: Path
    how: str = "kill"

    def variables(self) -> dict[str, str]:
        return {
            "TIDEMILL_CRASH_AT": self.at,
            "TIDEMILL_CRASH_HOW": self.how,
            "TIDEMILL_CRASH_FILE": str(self.file),
        }

    @property
    def reached(self) -> bool:
        return self.file.exists()


@dataclass
class Server:
    """data: the server's data folder. store_url None: SQLite in it. extra: more of its environment.

    quick: short times, for tests; otherwise the product's own.
    """

    data: Path
    store_url: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    quick: bool = True
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self, crash: Crash | None = None) -> None:
        """Starts it and waits until it is ready (or has come to its crash point)."""
        assert self.process is None
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "server.json").unlink(missing_ok=True)
        env = {name: os.environ[name] for name in _KEPT if name in os.environ}
        env |= QUICK if self.quick else {"TIDEMILL_SERVER__PORT": "0"}
        env |= {"TIDEMILL_DATA": str(self.data)} | dict(self.extra)
        if self.store_url:
            env["TIDEMILL_STORE__URL"] = self.store_url
        if crash:
            env |= crash.variables()
        self.starts += 1
        with self.log.open("ab") as log:
            command = [str(TIDEMILL), "serve"]
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        until(lambda: self._ready() or (crash is not None and crash.reached), f"a ready server\n{self.tail()}")

    @property
    def log(self) -> Path:
        return self.data.parent / f"{self.data.name}.server.log"

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:] if self.log.exists() else ""

    def kill(self) -> None:
        """SIGKILL. Its instances live on."""
        assert self.process is not None
        KILLS["server"] += 1
        self.process.kill()
        self.process.wait()
        self.process = None

    def gone(self) -> bool:
        """Whether it has ended by itself; notes that."""
        if self.process is not None and self.process.poll() is not None:
            KILLS["server"] += 1
            self.process = None
        return self.process is None

    def stop(self) -> None:
        """As an operator does: SIGTERM, and it ends by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            assert self.process.wait(20) in (0, -signal.SIGTERM), self.tail()
        finally:
            self.process.kill()
            self.process = None

    def call(self, method: str, path: str, body: object = None, *, once: str = "", **params: Any) -> Any:
        """One call of the JSON API; the decoded answer. once: an idempotency key. Raises httpx.TransportError."""
        key = json.loads((self.data / "root-credentials.json").read_text())
        headers = {"Authorization": f"Bearer {key['secret_id']}.{key['secret_key']}"}
        if once:
            headers["Idempotency-Key"] = once
        url = f"{self.url}/api/v1{path}"
        answer = httpx.request(method, url, json=body, params=params, headers=headers, timeout=30, trust_env=False)
        if answer.is_error:
            raise AssertionError(f"{method} {path}: HTTP {answer.status_code} {answer.text}\n{self.tail()}")
        return answer.json() if answer.content else None

    @property
    def url(self) -> str:
        url: str = json.loads((self.data / "server.json").read_text())["url"]
        return url.rstrip("/")

    def create(self, task: Mapping[str, Any]) -> str:
        """The id of the task; called again after a lost answer it is the same."""
        made: str = self.call("POST", "/tasks", dict(task), once=f"once {task['output']}")["id"]
        return made

    def task(self, task: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", f"/tasks/{task}")
        return found

    def finished(self, task: str, within_s: float = 90.0) -> dict[str, Any]:
        """The task once nothing more happens to it."""

        def look() -> dict[str, Any] | None:
            seen = self.task(task)
            return seen if seen["status"] in FINAL else None

        try:
            return until(look, f"the end of {task}", within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.task(task), indent=1)}\n{self.tail()}") from None

    def instances(self) -> list[procfs.Identity]:
        """Agents that live, whoever is their parent."""
        found = []
        for path in self.data.glob("**/instances/*/pid.json"):
            with contextlib.suppress(OSError, ValueError):
                identity = procfs.Identity(**json.loads(path.read_text()))
                if procfs.alive(identity):
                    found.append(identity)
        return found

    def kill_instances(self) -> int:
        """SIGKILL to each agent and its workers; how many agents."""
        agents = self.instances()
        for agent in agents:
            for one in procfs.belonging(agent.pid, agent.start_ticks, b"\0nobody carries this\0"):
                procfs.send(one, signal.SIGKILL)
            procfs.send(agent, signal.SIGKILL)
            KILLS["instance"] += 1
        return len(agents)

    def wipe(self) -> None:
        """Kills what is there still, at a test's end: server, instances, their control groups."""
        if self.process is not None:
            self.kill()
        self.kill_instances()
        cgroups.remove(self._groups())

    def leftovers(self) -> list[str]:
        """Processes, control groups and folders of instances that are there still."""
        left = [f"process {pid}: {command}" for pid, command in commands_below(self.data)]
        if self.process is not None:
            left = [one for one in left if not one.startswith(f"process {self.process.pid}:")]
        left += [str(group) for group in self._groups()]
        left += [str(folder) for folder in self.data.glob("**/instances/*")]
        return left

    def _groups(self) -> list[Path]:
        roots = {path.parent for path in self.data.glob("**/instances")}
        prefixes = tuple(f"tidemill-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}-" for root in roots)
        below = (group for one in cgroups.hierarchies() for group in one.base.glob("tidemill-*"))
        return [group for group in below if group.name.startswith(prefixes)]

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the server ended ({self.process.returncode}):\n{self.tail()}"
        with contextlib.suppress(OSError, ValueError, KeyError, httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False).is_success
        return False


def commands_below(folder: Path) -> list[tuple[int, str]]:
    """Living processes whose command line or environment names the folder."""
    found = []
    for seen in procfs.everyone():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{seen.pid}/cmdline").read_bytes().replace(b"\0", b" ")
            environment = Path(f"/proc/{seen.pid}/environ").read_bytes()
            if not seen.dead and (os.fsencode(folder) in command or os.fsencode(folder) in environment):
                found.append((seen.pid, command.decode(errors="replace")))
    return [(pid, command) for pid, command in found if pid != os.getpid()]


# The job that is disturbed

MODEL = '''
"""Counts what it predicts: each process appends to a file of its own, so that a kill loses nothing of the count."""

import os
import time


class CountingModel:
    def load(self):
        self.count = open(os.path.join(os.environ["COUNTS"], str(os.getpid()) + "-" + str(time.time_ns())), "a", 1)
        return True

    def predict(self, batch: list[dict]):
        for record in batch:
            if record["number"] % 500 == 77:
                raise ValueError("poison: %d" % record["number"])
        for record in batch:
            time.sleep(float(os.environ.get("RECORD_S", "0.0005")))
            self.count.write("%d\\\\n" % record["number"])
        return [{"number": record["number"], "square": record["number"] ** 2} for record in batch]
'''.replace("\\\\n", "\\n")

FILES, LINES = 6, 250


@dataclass(frozen=True)
class Job:
    """An input, a model and where its counts go; `task` makes the task for an output folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Job:
        source, model, counts = folder / "input", folder / "model", folder / "counts"
        for one in (source, model, counts):
            one.mkdir(parents=True)
        (model / "model_service.py").write_text(MODEL)
        for number in range(FILES):
            lines = (json.dumps({"number": number * LINES + line, "filler": "x" * 120}) for line in range(LINES))
            (source / f"part {number}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return cls(folder)

    def task(self, output: Path, counts: Path, *, instances: int = 1, record_s: float = 0.0005) -> dict[str, Any]:
        counts.mkdir(parents=True, exist_ok=True)
        return {
            "name": "kill",
            "model": str(self.folder / "model"),
            "input": f"{self.folder / 'input'}/",
            "output": f"{output}/",
            "instances": instances,
            "resources": {"cpu": 1, "memory": "256Mi"},
            "retries": 50,
            "env": {"COUNTS": str(counts), "RECORD_S": str(record_s)},
        }

    @property
    def numbers(self) -> set[int]:
        """Of the records that have a prediction."""
        return {number for number in range(FILES * LINES) if number % 500 != 77}


def counted(counts: Path) -> list[int]:
    """What the models have predicted, as often as they did."""
    return [int(line) for path in counts.iterdir() for line in path.read_text().splitlines()]


def results(output: Path) -> dict[str, bytes]:
    """What the user gets, by name below the folder; without receipt and marker, which tell of times.

    How many attempts it took to find a record that fails is taken out too: mini-batches grow with the model's speed.
    """
    found = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if (
            path.is_file()
            and name not in ("receipt.json", "_SUCCESS", "_inputs.jsonl")
            and not name.startswith("_tidemill/")
        ):
            found[name] = without_attempts(path.read_bytes()) if name == "errors.jsonl" else path.read_bytes()
    return found


def without_attempts(errors: bytes) -> bytes:
    return re.sub(rb'"attempts":\d+', b'"attempts":0', errors)
