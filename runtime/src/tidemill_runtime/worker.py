"""One worker process of an instance: lease → read → mini-batch → predict → encode → part → commit.

Forked by the agent before anything heavy is imported; loads the model itself, then takes one lease after another from
its socket. It tells the agent of each commit, and on the shared board what it is about to do.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime import board as boards
from tidemill_runtime import waits, wire
from tidemill_runtime.board import Board
from tidemill_runtime.faults import FatalError, Orphaned
from tidemill_runtime.pipe import Closed, LinePipe
from tidemill_runtime.process import die_with_parent, keep_freed_memory

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest
    from tidemill_runtime.leasework import Tools
    from tidemill_runtime.models.port import Model


def run_worker(pipe: LinePipe, board: Board, manifest: Manifest, parent: int, size: Optional[int] = None) -> int:
    """The whole life of a worker process; returns its exit status. size: the mini-batch to start with."""
    die_with_parent(parent)
    keep_freed_memory()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the agent hears it and decides
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    link = Link(pipe)
    waits.show_with(board.wait)
    try:
        _Worker(link, board, manifest, size).run()
    except FatalError as error:
        link.tell({"type": "fault", "fault": error.fault()})
    except Orphaned:
        return wire.EXIT_ORPHANED
    except (_Finished, Closed):
        pass
    except MemoryError as error:
        link.tell({"type": "fault", "fault": wire.fault("out_of_memory", f"the worker ran out of memory: {error}")})
    except Exception as error:
        import traceback

        text = traceback.format_exc()
        link.tell(
            {"type": "fault", "fault": wire.fault("internal", f"{type(error).__name__}: {error}", str(error), text)}
        )
    return wire.EXIT_DONE


class _Finished(Exception):
    """The agent has no more work."""


class Link:
    """The worker's end of its socket."""

    def __init__(self, pipe: LinePipe) -> None:
        self._pipe = pipe

    def tell(self, message: dict[str, Any]) -> None:
        try:
            self._pipe.send(wire.dumps(message))
            self._pipe.flush_all()
        except Closed:
            raise Orphaned from None

    def heard(self, wait: bool, within_s: Optional[float] = None) -> list[dict[str, Any]]:
        """Messages of the agent; waits for one if told to, up to `within_s` or for ever. Raises Orphaned."""
        try:
            while True:
                lines = self._pipe.lines()
                if lines or not wait:
                    return [wire.loads(line) for line in lines]
                if not self._pipe.wait(within_s):
                    return []
        except Closed:
            raise Orphaned from None


class _Worker:
    def __init__(self, link: Link, board: Board, manifest: Manifest, size: Optional[int]) -> None:
        self._link = link
        self._board = board
        self._manifest = manifest
        self._size = size

    def run(self) -> None:
        from tidemill_runtime.leasework import LeaseLost, LeaseWork, Tools  # in the worker alone: the agent stays light

        model, tools = self._load(Tools)
        while True:
            self._board.enter(boards.IDLE)
            for message in self._link.heard(wait=True):
                kind = message["type"]
                if kind == "close":
                    model.close()
                    raise _Finished
                if kind == "flush":
                    self._link.tell({"type": "flushed"})
                elif kind == "drop":
                    self._link.tell({"type": "dropped", "ticket": message["ticket"]})
                elif kind == "lease":
                    try:
                        LeaseWork(tools, message).run()
                    except LeaseLost as lost:
                        self._link.tell(lost.answer)

    def _load(self, make_tools: Any) -> tuple[Model, Tools]:
        from tidemill_runtime.batching import BatchSizer
        from tidemill_runtime.isolation import Isolator
        from tidemill_runtime.models.loading import load_model

        self._board.enter(boards.LOADING)
        started = time.monotonic()
        manifest = self._manifest
        model = load_model(manifest)

        def tell() -> None:
            kept = sizer.size if sizer.measured else None
            self._link.tell(
                {"type": "tuned", "size": sizer.shown, "keep": kept, "why": sizer.why, "sorted": isolator.sorted}
            )

        sizer = BatchSizer(manifest.pins.batch_size, self._size, tell)
        isolator = Isolator(model, self._board, sizer, manifest.record_timeout_s)
        gc.freeze()  # a large model's objects are not looked through again and again: they stay anyway
        self._link.tell({"type": "loaded", "load_s": time.monotonic() - started, "shape": model.shape})
        return model, make_tools(
            self._link, self._board, manifest, isolator, sizer, {"predict": 0.0, "read": 0.0, "write": 0.0}
        )
