"""A folder with models and inputs for tests of `tidemill run`, in this process or in one that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tidemill.local import Result, RunProgress, run
from tidemill.settings import BucketSection, LimitsSection, RegionSection, Settings

DOUBLE = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            return [self.one(record) for record in batch]
        def one(self, record):
            return record["x"] * 2
"""
GATED = """
    import os, time
    class Model:
        '''Waits before each record until the file `gate` in the model's folder has let so many pass.'''
        def __init__(self, model_dir): self.folder = model_dir
        def load(self): return True
        def predict(self, batch: list[dict]):
            out = []
            for record in batch:
                while True:
                    try: allowed = int(open(os.path.join(os.environ["GATE"])).read() or 0)
                    except (FileNotFoundError, ValueError): allowed = 0
                    if record["x"] < allowed: break
                    time.sleep(0.005)
                with open(os.environ["GATE"] + ".seen", "a") as seen: seen.write("%d\\n" % record["x"])
                out.append(record["x"] * 2)
            return out
"""
DRIVER = """
    import json, os, sys
    from tidemill.local import run
    from tidemill.settings import load_settings
    request = json.loads(sys.argv[1])
    settings = load_settings(None, os.environ).settings
    result = run(request["task"], resume=request["resume"], settings=settings)
    print(json.dumps({**result.to_json(), "resumable": result.resumable}), flush=True)
"""


def source(predict: str, argument: str = "r: dict", *, load: str = "return True", head: str = "") -> str:
    """The smallest model: statements on one line each."""
    return (
        f"import os, signal, time\n{head}\nclass Model:\n"
        f"    def load(self): {load}\n    def predict(self, {argument}): {predict}\n"
    )


def until(look: Callable[[], Any], what: str, within_s: float = 60.0) -> Any:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < deadline, f"within {within_s:g} s it did not come about: {what}"
        time.sleep(0.01)
    return seen


OWN_TIME = ("receipt.json", "_SUCCESS", "_inputs.jsonl")
"""What differs from one run to the next, by times, ids and the files' etags."""


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.shown: list[RunProgress] = []
        self.settings = Settings(data=root / "data", limits=LimitsSection(commit_every_s=0.2))
        self.gate = root / "gate"

    def bucket(self, name: str, section: BucketSection) -> World:
        self.settings = self.settings.replace(regions={"local": RegionSection(buckets={name: section})})
        return self

    def model(self, source: str = DOUBLE, folder: str = "model") -> World:
        place = self.root / folder / "batch"
        place.mkdir(parents=True, exist_ok=True)
        (place / "model_service.py").write_text(textwrap.dedent(source))
        return self

    def file(self, name: str, data: bytes | str) -> World:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return self

    def numbers(self, name: str, values: Iterable[Any]) -> World:
        return self.file(name, "".join(json.dumps({"x": value}) + "\n" for value in values))

    def task(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "t",
            "model": str(self.root / "model"),
            "input": str(self.root / "in") + "/",
            "output": str(self.root / "out"),
            "resources": {"cpu": 1, "memory": "1Gi"},
            **changes,
        }

    def run(self, *, resume: bool = False, **changes: Any) -> Result:
        return run(self.task(**changes), resume=resume, settings=self.settings, progress=self.shown.append)

    def read(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.root / "out" / name).read_bytes().splitlines()]

    def results(self) -> dict[str, bytes]:
        """Every object in the output folder that is a result."""
        out = self.root / "out"
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and "_tidemill" not in path.parts and path.name not in OWN_TIME
        }

    def left_over(self) -> list[str]:
        """What is below the output's `_tidemill` folder."""
        return [path.name for path in (self.root / "out").glob("_tidemill/*")]

    def open_gate(self, count: int) -> None:
        fresh = self.gate.with_suffix(".new")
        fresh.write_text(str(count))
        fresh.rename(self.gate)

    def seen(self) -> list[int]:
        """What a gated model was asked to predict, in order."""
        path = Path(f"{self.gate}.seen")
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    @contextlib.contextmanager
    def process(
        self, *, resume: bool = False, variables: Mapping[str, str] | None = None, **changes: Any
    ) -> Iterator[Process]:
        """`tidemill run` in a process of its own, in its own session; killed at the end."""
        scratch = self.root / "scratch"
        scratch.mkdir(exist_ok=True)
        own = {
            "TIDEMILL_DATA": str(self.root / "data"),
            "TIDEMILL_LIMITS__COMMIT_EVERY_S": "0.2",
            "TMPDIR": str(scratch),
        }
        env = {**os.environ, **own, **(variables or {})}
        request = json.dumps({"task": self.task(**changes), "resume": resume})
        started = Process(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(DRIVER), request],
                env=env,
                cwd=self.root,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                text=True,
            )
        )
        try:
            yield started
        finally:
            started.close()


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._known: dict[int, psutil.Process] = {}

    def family(self) -> list[psutil.Process]:
        """Its instances and their workers, also those whose parent is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._known[child.pid] = child
        return [each for each in self._known.values() if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    def agent(self) -> psutil.Process:
        def look() -> list[psutil.Process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                return [p for p in psutil.Process(self.process.pid).children() if "tidemill_runtime" in p.cmdline()]
            return []

        return until(look, "an instance")[0]

    def signal(self, number: int) -> None:
        self.family()
        self.process.send_signal(number)

    def result(self) -> dict[str, Any]:
        out, errors = self.process.communicate(timeout=60)
        assert out, errors
        return json.loads(out.splitlines()[-1])

    def close(self) -> None:
        family = self.family()
        self.process.kill()
        self.process.communicate()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGKILL)
