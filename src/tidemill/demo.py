"""`make demo`: the main job from beginning to end on embedded defaults, told as it goes. `python -m tidemill.demo
[FOLDER]`.

A real server is started on a free port and stopped again, also after Ctrl-C. What it made stays in FOLDER (.demo), so
that the commands it ends with have something to work on; the next run makes it anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidemill import demo_model
from tidemill.cli.ending import failed_records, place_of, what_failed
from tidemill.cli.output import printable
from tidemill.cli.progress import Progress, make_progress, progress_line
from tidemill.client import Client
from tidemill.domain.errors import Conflict, TidemillError
from tidemill.wire.quantities import format_bytes, format_seconds

if TYPE_CHECKING:
    from tidemill.wire.views import ProgressView, TaskView

NAME = "digits"
INPUT, OUTPUT = f"cos://data/{NAME}/input/", f"cos://data/{NAME}/output/"
START_S, STOP_S = 60.0, 20.0
SHOWN = 5
DIGITS = 16
"""Of a digest, for people."""


def main(folder: Path, console: Console, *, picture: bool = False) -> int:
    """Runs it; the exit status. picture: progress goes to the console as one line, for a picture of it all."""
    if importlib.util.find_spec("sklearn") is None:
        console.print("The demonstration needs scikit-learn: run it with `make demo`, or install scikit-learn.")
        return 2
    _clear(folder)
    _step(console, "Train a model on scikit-learn's handwritten digits, and write 20,000 records for it")
    made = demo_model.make(folder)
    records = sum(len(digits) for digits in made.truth.values())
    _told(
        console, f"{made.accuracy:.1%} of unseen digits right; {records:,} records in {len(made.truth)} files, 3 broken"
    )
    with _server(folder / "server", console) as client:
        _step(console, "Import the model, upload the input, create the task")
        version = client.models.import_(NAME, folder / "model", description="Support vector machine, 8 × 8 pixels")
        _told(console, f"model  {version.reference}, {version.status}, {format_bytes(version.size_bytes)}")
        uploaded = client.objects.put_folder(INPUT, folder / "input")
        _told(console, f"input  {INPUT}, {len(uploaded)} objects, {format_bytes(sum(o.size_bytes for o in uploaded))}")
        wanted = _write_task(folder / "task.yaml", version.reference)
        task = client.tasks.create(wanted)
        _told(console, f"task   {task.name}, {task.id}, {task.instances} instances")
        try:
            view = _watch(client, task.id, console, picture)
        except BaseException:
            _stop_task(client, task.id)
            raise
        _show(client, view, made.truth, console)
    _next(folder, console)
    return 0 if view.status == "SUCCEED" and view.counts.failed == 3 and view.counts.inputs == records else 1


def _clear(folder: Path) -> None:
    """An empty folder. Raises Conflict if a server still works in it."""
    lock = folder / "server" / "server.lock"
    if lock.exists():
        with lock.open("rb") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict(f"a server works in {folder / 'server'}.", remedy="Stop it, then try again.") from None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


@contextlib.contextmanager
def _server(data: Path, console: Console) -> Iterator[Client]:
    """A server in a process of its own, on a free port; stopped in the end, whatever happens."""
    _step(console, "Start a server, with everything it needs inside")
    with (data.parent / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidemill", "serve", "--data", str(data), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data.parent,  # away from a tidemill.toml that may lie here
            start_new_session=True,  # Ctrl-C is for us: the task is stopped first
        )
    try:
        _wait_for(data / "server.json", process, data.parent / "server.log")
        # All of it is named, so that no settings of this user lead elsewhere.
        url = json.loads((data / "server.json").read_text())["url"]
        key = json.loads((data / "root-credentials.json").read_text())
        with Client(url, secret_id=key["secret_id"], secret_key=key["secret_key"], data=data) as client:
            _told(console, f"{client.url}, data in {_short(data)}")
            yield client
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not address.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise TidemillError("the server did not start.", remedy=f"See {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def _write_task(file: Path, model: str) -> Path:
    file.write_text(
        f"name: {NAME}\nmodel: {model}\ninput: {INPUT}\noutput: {OUTPUT}\ninstances: 2\ntags: {{made-by: make-demo}}\n"
    )
    return file


def _watch(client: Client, task: str, console: Console, picture: bool) -> TaskView:
    """Live progress until the end. Raises KeyboardInterrupt through."""
    _step(console, "The task goes by itself")
    last: ProgressView | None = None
    with Progress() if picture else make_progress(quiet=False) as shown:
        for last in client.tasks.watch(task):
            shown.update(last)
            if picture and last.phase == "predicting":
                busy = last
    if picture:
        _told(console, progress_line(busy))
    return client.tasks.get(task)


def _stop_task(client: Client, task: str) -> None:
    """Instances of a server outlive it, so the task is stopped before the server is."""
    with contextlib.suppress(TidemillError):
        client.tasks.stop(task)
        client.wait(task, timeout_s=STOP_S)


def _show(client: Client, view: TaskView, truth: dict[str, list[int | None]], console: Console) -> None:
    counts = view.counts
    headline = f"{view.status} WITH {failed_records(counts.failed).upper()}" if counts.failed else str(view.status)
    console.print()
    console.print(Text(headline, style="bold yellow" if view.status == "SUCCEED" else "bold red"))
    console.print(view.explanation, highlight=False, markup=False)
    instances = list(client.tasks.instances(view.id))
    released = sum(instance.ended_at is not None for instance in instances)
    console.print(f"{released} of {len(instances)} instances released", highlight=False)
    if view.status != "SUCCEED":
        return
    _show_predictions(client, truth, console)
    _show_failures(client, view.id, console)
    _show_receipt(client.tasks.receipt(view.id).model_dump(mode="json"), console)
    _show_time(view.seconds.model_dump(), console)


def _show_predictions(client: Client, truth: dict[str, list[int | None]], console: Console) -> None:
    table = _table("record", "prediction", "in truth", "")
    right = known = 0
    for name, digits in truth.items():
        lines = client.objects.read(f"{OUTPUT}{name}.out.jsonl").decode().splitlines()
        assert len(lines) == len(digits), "a result line for each record"
        for number, (line, digit) in enumerate(zip(lines, digits, strict=True), 1):
            if digit is None:
                continue
            found = json.loads(line)["digit"]
            right, known = right + (found == digit), known + 1
            if known <= SHOWN:
                table.add_row(f"{name} line {number}", line, str(digit), "right" if found == digit else "wrong")
    _titled(console, "First predictions", table)
    console.print(f"{right / known:.1%} of {known:,} predictions right", highlight=False)


def _show_failures(client: Client, task: str, console: Console) -> None:
    table = _table("record", "reason", "what it was")
    for error in client.tasks.errors(task):
        told = error.model_dump()
        record = printable(error.input or "")
        table.add_row(place_of(told), what_failed(told), f"{record[:12]} … {record[-16:]}")
    _titled(console, "Records that failed", table)


def _show_receipt(receipt: dict[str, Any], console: Console) -> None:
    table = _table("", "", "sha256")
    counts, given, got = receipt["counts"], receipt["input"], receipt["results"]
    keys = ("inputs", "ok", "failed", "skipped")
    table.add_row("records", "{:,} = {:,} ok + {:,} failed + {:,} skipped".format(*(counts[key] for key in keys)))
    table.add_row("model", receipt["model"], receipt["model_sha256"][:DIGITS] + "…")
    for name, found, digest in (("input", given, given["listing_sha256"]), ("results", got, got["manifest_sha256"])):
        table.add_row(name, f"{found['objects']} objects, {format_bytes(found['bytes'])}", digest[:DIGITS] + "…")
    table.add_row("errors", "errors.jsonl", got["errors_sha256"][:DIGITS] + "…")
    _titled(console, "Receipt", table)


def _show_time(seconds: dict[str, float], console: Console) -> None:
    table = _table("", "", "")
    total = seconds.pop("total") or 1.0
    for phase, spent in seconds.items():
        table.add_row(phase, format_seconds(spent), Text("█" * round(40 * spent / total), style="cyan"))
    _titled(console, "Where time went", table)


def _next(folder: Path, console: Console) -> None:
    command = shutil.which("tidemill") or str(Path(sys.executable).parent / "tidemill")
    tidemill, here = _short(Path(command)), _short(folder)
    _step(console, "Try next")
    again = f"{tidemill} run --model {here}/model --input {here}/input/ --output {here}/output/"
    for told, line in (
        ("The same job without a server:", again),
        ("The server again, with this task in it:", f"{tidemill} serve --data {here}/server"),
        ("Then, in another terminal, what failed and why:", f"{tidemill} task errors {NAME} --data {here}/server"),
    ):
        console.print(f"  {told}", highlight=False)
        console.print(f"    {line}", style="bold", highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=any(columns), show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _titled(console: Console, title: str, table: Table) -> None:
    console.print()
    console.print(title, style="bold")
    console.print(table)


def _step(console: Console, text: str) -> None:
    console.print()
    console.print(Text("● ", style="cyan") + Text(text, style="bold"))


def _told(console: Console, text: str) -> None:
    console.print(f"  {text}", highlight=False)


def _short(path: Path) -> str:
    """A path from here, where it lies below."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # also when the terminal is closed
        signal.signal(number, _interrupt)
    for name in [name for name in os.environ if name.startswith("TIDEMILL_")]:
        del os.environ[name]  # this is about the defaults
    screen = Console(width=None if sys.stdout.isatty() else 110)
    try:
        status = main(Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").absolute(), screen)
    except KeyboardInterrupt:
        screen.print("\nInterrupted; nothing is left running. Again: make demo")
        status = 130
    except TidemillError as error:
        screen.print(f"error: {error}", style="red", highlight=False, markup=False)
        status = 1
    sys.exit(status)
