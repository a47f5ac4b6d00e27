"""How many workers an instance has, and how many threads each of them: chosen at the start, corrected by measuring.

One worker for each core, with a thread each, is right for most models. Where a model is so large that they do not all
fit, the first loads alone, and as many follow as fit, with the cores shared out among them. And when a run has gone on
for long enough to make it pay, one worker with all the cores is tried for some seconds, and stays if it is faster.
Used by the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime import board as boards
from tidemill_runtime.faults import log

if TYPE_CHECKING:
    from tidemill_runtime.board import Totals
    from tidemill_runtime.contract import Manifest
    from tidemill_runtime.leases import LeaseBook
    from tidemill_runtime.pool import Pool, Worker
    from tidemill_runtime.watch import Watch

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "NUMEXPR_NUM_THREADS",
)
LARGE = 0.5
"""Of the memory, used before any worker has loaded: from then on they load one after the other."""
ROOM = 0.9
"""Of the memory, to be filled with loaded models."""
TRIAL_S = 3.0
PAYS_AFTER = 20
"""Something is tried once the instance has worked so many times as long as the trial takes."""
BETTER = 1.1
_LOOK_EVERY_S = 0.2
_CARDS = "/proc/driver/nvidia/gpus"
_PATIENCE_S = 20.0
_DRY_S = 1.0
"""Without a lease for so long, there is none left: an answer of the coordinator takes a hundredth of it."""


class Crew:
    """The workers of an instance. threads: of those that are forked from now on. size: the mini-batch to start with.

    look: to be called often. loaded, tuned, buried: tell what happened. None of it waits.
    """

    def __init__(self, pool: Pool, watch: Watch, book: LeaseBook, manifest: Manifest) -> None:
        self._pool = pool
        self._watch = watch
        self._book = book
        self._memory_bytes = manifest.memory_bytes
        self._cores = max(1, manifest.millicores // 1000)
        self._machine = machine(manifest.millicores, manifest.memory_bytes)
        served = _is_served(manifest)
        pins, hint = manifest.pins, None if served else manifest.hints.get(self._machine)
        self._told_threads = next((name for name in THREAD_VARIABLES if name in os.environ), "")
        self._pinned = bool(served or pins.processes or pins.threads or self._told_threads)
        self._pinned_processes = bool(served or pins.processes)
        self._pinned_size = pins.batch_size
        known = hint.processes if hint is not None and not self._pinned else None
        watch.expect(pins.processes or known or (1 if served else self._cores))
        self.threads = pins.threads or (hint.threads if hint is not None and known else None) or self._share()
        self.size = None if hint is None else hint.batch_size
        self._kept = {"processes": known, "threads": self.threads} if known else {}
        self._why = "one for the one server" if served and not pins.processes else _why_at_first(pins, bool(known))
        self._threads_why = "pinned" if pins.threads else self._told_threads and f"{self._told_threads} is set"
        self._size_why = "pinned" if pins.batch_size else "being measured"
        self._measured_size = False
        self._shown = 0
        self._held_back = False
        self._outgrown: Optional[Worker] = None
        self._trial: Optional[_Trial] = None
        self._marks: dict[int, Totals] = {}
        self._load_s = 0.0
        self._look_at = 0.0

    def start(self) -> None:
        for _ in range(self.wanted):
            self.fork()

    def fork(self) -> None:
        self._pool.fork(self.threads)

    @property
    def wanted(self) -> int:
        """How many workers there are to be now."""
        holding = self._held_back and not any(worker.loaded for worker in self._pool.workers)
        return 1 if holding else self._watch.processes + (self._trial is not None)

    def may_work(self, worker: Worker) -> bool:
        """Whether it is to be given a lease now."""
        if not worker.loaded or worker.silent or worker.retiring:
            return False
        return self._trial is None or not self._trial.wide.loaded or worker is self._trial.wide

    def idle(self) -> int:
        """How many workers wait for a lease, or will once they have loaded."""
        trial = self._trial is not None and self._trial.wide.loaded
        return sum(
            worker.split is None and not worker.retiring and (not trial or self.may_work(worker))
            for worker in self._pool.workers
        )

    def loaded(self, worker: Worker, load_s: float) -> None:
        """A worker has its model."""
        self._load_s = self._load_s or load_s
        if self._held_back and len(self._pool.workers) == 1:
            self._fill_up(worker)

    def tuned(self, message: dict[str, Any]) -> None:
        """A worker has settled on a mini-batch size."""
        self._shown, self._size_why = message["size"], message["why"]
        if message["keep"] is not None:
            self.size, self._measured_size = message["keep"], True
        if message["sorted"]:
            self._size_why += "; sorted by length"

    def buried(self, worker: Worker) -> bool:
        """Whether this worker was to end."""
        if self._trial is not None and (worker is self._trial.wide or not worker.retiring):
            self._end_trial()
        return worker.retiring and worker.split is None

    def look(self) -> None:
        """Decides what is to be decided now."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_EVERY_S
        if not any(worker.loaded for worker in self._pool.workers):
            self._hold_back()
        elif self._outgrown is not None:
            self._replace(self._outgrown)
        elif self._trial is not None:
            self._go_on_trying(self._trial, now)
        elif not self._pinned and self._may_try():
            log(f"trying one worker with {self._cores} threads")
            rate = self._rate()
            self._trial = _Trial(self._pool.fork(self._cores), now, rate)

    def tuning(self) -> dict[str, Any]:
        """The choices and their reasons, for people; under "keep" what the next run may start with."""
        sizes = [worker.board.totals().batch for worker in self._pool.workers]
        known = [size for size in (self.size if self._measured_size else None, self._watch.most) if size]
        keep = {"batch_size": min(known)} if known and not self._pinned_size else {}
        return {
            "processes": self._watch.processes,
            "processes_why": self._watch.why or self._why,
            "threads": self.threads,
            "threads_why": self._threads_why or "what is left of the cores for each process",
            "batch_size": self._shown or max(sizes, default=0),
            "batch_size_why": self._size_why,
            "machine": self._machine,
            "keep": {**keep, **self._kept},
        }

    # -- large models

    def _hold_back(self) -> None:
        """The first worker loads alone where the memory would not do for all of them."""
        workers = self._pool.workers
        full = self._watch.memory_bytes > LARGE * self._memory_bytes > 0
        if len(workers) < 2 or self._pinned_processes or not full:
            return
        self._held_back = True
        first = max(workers, key=lambda worker: worker.memory_bytes)
        for other in workers:
            if other is not first:
                other.retiring = True
                other.kill()

    def _fill_up(self, first: Worker) -> None:
        """The first worker has loaded: as many more as there is room for."""
        self._pool.measure_exactly()
        fit = int(ROOM * self._memory_bytes // max(1, first.memory_bytes))
        processes = max(1, min(self._watch.processes, fit))
        if processes < self._watch.processes:
            self._why = f"a loaded model takes {first.memory_bytes / 2**30:.1f} GiB; more would not fit into memory"
        self._watch.expect(processes)
        if not self._pinned:
            self.threads = self._share()
            self._kept = {"processes": processes, "threads": self.threads}
            self._outgrown = first if self.threads > first.threads else None
        for _ in range(processes - 1):
            self.fork()

    def _replace(self, outgrown: Worker) -> None:
        """A worker that loaded before its share of the cores was known is replaced by one that uses all of it, once it
        has worked for as long as loading takes.
        """
        if outgrown not in self._pool.workers:
            self._outgrown = None
        elif outgrown.board.totals().predict_s > self._load_s:
            self._outgrown = None
            outgrown.retire()

    def _share(self) -> int:
        return max(1, self._cores // self._watch.processes)

    # -- one worker with all the cores

    def _may_try(self) -> bool:
        """Whether one worker with all the cores is worth a trial: once, with time to spare and room for its model."""
        workers = self._pool.workers
        if self._kept or self._cores == 1 or self.threads > 1 or len(workers) != self._cores:
            return False
        if any(worker.split is None for worker in workers):
            return False
        totals = {worker.pid: worker.board.totals() for worker in workers}
        if min(map(_busy_s, totals.values())) < PAYS_AFTER * (TRIAL_S + self._load_s) - TRIAL_S:
            self._marks = totals
            return False
        if set(self._marks) != set(totals) or self._rate() == 0:
            return False
        room = self._watch.memory_bytes * (1 + 1 / len(workers)) < ROOM * self._memory_bytes
        heavy = all(each.predict_s > 0.8 * _busy_s(each) for each in totals.values())
        if not (room and heavy):
            self._kept = {"processes": self._cores, "threads": 1}
        return room and heavy

    def _rate(self) -> float:
        """Records a second of all workers since they were marked; 0 where that is too short."""
        rates = [_rate(self._marks[worker.pid], worker.board.totals()) for worker in self._pool.workers]
        return sum(rates) if all(rates) else 0.0

    def _go_on_trying(self, trial: _Trial, now: float) -> None:
        if now - trial.since > _PATIENCE_S + 2 * self._load_s or self._has_run_dry(trial, now):
            self._end_trial()
        elif trial.wide.loaded:
            others = [worker for worker in self._pool.workers if worker is not trial.wide]
            if not trial.paused:
                trial.paused = True
                for worker in others:
                    worker.tell({"type": "pause"})
            elif any(worker.board.phase().phase != boards.IDLE for worker in others):
                trial.mark = None
            else:
                self._measure(trial)

    def _has_run_dry(self, trial: _Trial, now: float) -> bool:
        """Whether nothing is left for the one that is tried, while the others hold what is left and stand still."""
        if not trial.wide.loaded or trial.wide.split is not None or self._book.queued:
            trial.dry_since = now
        return now - trial.dry_since > _DRY_S

    def _measure(self, trial: _Trial) -> None:
        totals = trial.wide.board.totals()
        if trial.mark is None:
            trial.mark = totals if totals.records else None
            return
        rate = _rate(trial.mark, totals)
        if not rate:
            return
        wide = f"1 process with {self._cores} threads {rate:,.4g} records/s"
        narrow = f"{self._cores} with 1 thread {trial.rate:,.4g}"
        if rate > BETTER * trial.rate:
            self._end_trial(won=True)
            self._why = f"measured: {wide}, {narrow}"
            self._threads_why = "measured with the processes"
        else:
            self._end_trial()
            self._why = f"measured: {narrow} records/s, {wide.replace(' records/s', '')}"

    def _end_trial(self, *, won: bool = False) -> None:
        """The losers lay down their leases, which others go on with."""
        trial, self._trial = self._trial, None
        assert trial is not None
        for worker in self._pool.workers:
            if (worker is trial.wide) is not won:
                worker.retire()
            worker.tell({"type": "resume"})
        if won:
            self._watch.expect(1)
            self.threads = self._cores
        self._kept = {"processes": self._watch.processes, "threads": self.threads}


class _Trial:
    """wide: the worker with all the cores. rate: of the others before. mark: where its measuring began."""

    def __init__(self, wide: Worker, since: float, rate: float) -> None:
        self.wide = wide
        self.since = since
        self.rate = rate
        self.paused = False
        self.dry_since = since
        self.mark: Optional[Totals] = None


def _busy_s(totals: Totals) -> float:
    return totals.predict_s + totals.read_s + totals.write_s


def _rate(before: Totals, now: Totals) -> float:
    """Records a second between two moments; 0 where they are too near."""
    seconds = _busy_s(now) - _busy_s(before)
    return (now.records - before.records) / seconds if seconds >= TRIAL_S else 0.0


def _is_served(manifest: Manifest) -> bool:
    """Whether the model is an HTTP server: it has processes of its own, and one client is enough for all of them."""
    if manifest.command is not None:
        return manifest.command.protocol == "http"
    for folder in (manifest.code, manifest.model):
        path = os.path.join(folder or "", "tidemill.json")
        if folder and manifest.function is None and os.path.isfile(path):
            with contextlib.suppress(OSError, ValueError, AttributeError), open(path, "rb") as file:
                return bool(json.loads(file.read()).get("command", {}).get("protocol") == "http")
            return False  # the worker will say what is wrong with it
    return False


def _why_at_first(pins: Any, known: bool) -> str:
    if pins.processes:
        return "pinned"
    return "as an earlier run with this model ended here" if known else "one for each core"


def machine(millicores: int, memory_bytes: int) -> str:
    """What of a machine decides how a model is run on it best: what the instance may use, processor, graphics cards."""
    memory = f"{1 << (memory_bytes >> 30).bit_length() >> 1} GiB"  # by its power of two: what is free varies
    words = [f"{millicores / 1000:g} cores", memory, _processor(), *_cards()]
    return ", ".join(word for word in words if word)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            head = file.read(2048)  # of the first core; all of them take the kernel milliseconds
    except OSError:
        return ""
    lines = [line.partition(":") for line in head.splitlines()]
    return next((value.strip() for name, _, value in lines if name.strip() == "model name"), "")


def _cards() -> list[str]:
    """The graphics cards that NVIDIA's driver tells of; of others nothing is known, and nothing hangs on it."""
    found = []
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(_CARDS)):
            with open(os.path.join(_CARDS, name, "information")) as file:
                found += [line.partition(":")[2].strip() for line in file if line.startswith("Model:")]
    return found
