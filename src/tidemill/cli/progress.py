"""Live progress of a task: a bar in a terminal, a line now and then elsewhere. On standard error.

Fed with `ProgressView`s by `task watch` and `--wait`, and with the same fields by `run`. The bar is drawn by a thread
of its own, so that importing Rich holds up nothing.
"""

from __future__ import annotations

import html
import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from tidemill.cli.output import counted, is_utf8, write
from tidemill.domain.life import PAUSED
from tidemill.wire.quantities import format_seconds

PLAIN_EVERY_S = 5.0
"""Seconds between lines without a terminal."""
DRAW_EVERY_S = 0.125
NOTEBOOK_EVERY_S = 0.25
_NOBODY_AT_WORK = ("installing", "planning", "publishing", "finished")


class CountsLike(Protocol):
    @property
    def inputs(self) -> int: ...
    @property
    def failed(self) -> int: ...


class ProgressLike(Protocol):
    """What is shown; `wire.views.ProgressView` has it all."""

    @property
    def phase(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def explanation(self) -> str: ...
    @property
    def counts(self) -> CountsLike: ...
    @property
    def pending(self) -> CountsLike: ...
    @property
    def share(self) -> float: ...
    @property
    def records_per_s(self) -> float | None: ...
    @property
    def eta_s(self) -> float | None: ...
    @property
    def instances(self) -> int: ...
    @property
    def instances_running(self) -> int: ...


class Progress:
    """Base: shows nothing. Use it in a `with`; call `update` as often as you like, from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, view: ProgressLike) -> None:
        """Takes the newest state."""

    def close(self) -> None:
        """Ends the view, leaving its last state on the screen."""


class PlainProgress(Progress):
    """A line when the phase changes, and every few seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._explanation = ""
        self._due = 0.0
        self._lock = threading.Lock()

    def update(self, view: ProgressLike) -> None:
        now = time.monotonic()
        with self._lock:
            if view.phase == self._phase and view.explanation == self._explanation and now < self._due:
                return
            self._phase, self._explanation, self._due = view.phase, view.explanation, now + PLAIN_EVERY_S
        write(sys.stderr, progress_line(view) + "\n")


class LiveProgress(Progress):
    """A bar that is drawn anew eight times a second."""

    def __init__(self) -> None:
        self._view: ProgressLike | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="progress", daemon=True)
        self._thread.start()

    def update(self, view: ProgressLike) -> None:
        self._view = view

    def close(self) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _draw(self) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        while self._view is None:  # a request may be refused: then there is nothing to show
            if self._ended.wait(DRAW_EVERY_S):
                return
        view = self._view

        def drawn(view: ProgressLike) -> Group:
            row = Table.grid(padding=(0, 1))
            row.add_row(
                ProgressBar(total=1.0, completed=view.share, width=32), Text(f"{view.share:4.0%}", style="bold"),
                Text(view.phase, style="cyan"),
            )  # fmt: skip
            facts = Text(" · ".join(_facts(view)), overflow="ellipsis", no_wrap=True)
            if view.counts.failed + view.pending.failed:
                facts.append(f" · {view.counts.failed + view.pending.failed:,} failed", style="bold yellow")
            told = [Text(_told(view), style="yellow")] if _explains(view) else []
            return Group(row, facts, *told)

        with Live(drawn(view), console=Console(stderr=True), refresh_per_second=8, transient=False) as live:
            while not self._ended.wait(DRAW_EVERY_S):
                live.update(drawn(self._view))
            live.update(drawn(self._view))


class NotebookProgress(Progress):
    """One line of a notebook's cell, replaced a few times a second."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]  # there is one in a notebook

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)
        self._due = 0.0
        self._view: ProgressLike | None = None

    def update(self, view: ProgressLike) -> None:
        self._view = view
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + NOTEBOOK_EVERY_S
            self._show(view)

    def close(self) -> None:
        if self._view is not None:
            self._show(self._view)

    def _show(self, view: ProgressLike) -> None:
        bar = f"<progress value='{view.share:.4f}' max='1' style='width: 16em'></progress>"
        self._handle.update(self._html(f"{bar} <code>{html.escape(progress_line(view))}</code>"))


def make_progress(*, quiet: bool) -> Progress:
    """The view that fits standard error."""
    if quiet:
        return Progress()
    if _in_notebook():
        return NotebookProgress()
    return LiveProgress() if sys.stderr.isatty() else PlainProgress()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def progress_line(view: ProgressLike) -> str:
    """`predicting · 1 of 1 instances · 12,345 records (61%) · 6,172 records/s · ETA 1.3 s · 3 failed`."""
    failed = view.counts.failed + view.pending.failed
    facts = [view.phase, *_facts(view, share=True), *([f"{failed:,} failed"] if failed else [])]
    text = (" · " if is_utf8(sys.stderr) else ", ").join(facts)
    return f"{text}. {_told(view)}" if _explains(view) else text


def _explains(view: ProgressLike) -> bool:
    """Whether there is something to say that the end does not say again."""
    return bool(view.explanation) and view.phase != "finished"


def _told(view: ProgressLike) -> str:
    return f"Paused: {view.explanation}" if view.reason in PAUSED else view.explanation


def _facts(view: ProgressLike, *, share: bool = False) -> list[str]:
    done = view.counts.inputs + view.pending.inputs
    facts = []
    if view.phase not in _NOBODY_AT_WORK:
        facts.append(f"{view.instances_running} of {view.instances} instance{'' if view.instances == 1 else 's'}")
    if done or view.share:
        facts.append(counted(done, "record") + (f" ({view.share:.0%})" if share else ""))
    if view.records_per_s and view.phase not in _NOBODY_AT_WORK:
        facts.append(f"{view.records_per_s:,.0f} records/s")
    if view.eta_s is not None:
        facts.append(f"ETA {format_seconds(view.eta_s)}")
    return facts
