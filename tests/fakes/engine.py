"""An engine in memory, for tests of loops and for the conformance suite.

It runs nothing by itself: an instance that was launched is RUNNING until the test says otherwise.

    engine = FakeEngine(Resources(4000, 8 << 30))
    ... the loop under test launches ...
    engine.end("batch-…-r1-0-a1", exit_code=3, fault=Fault("model_load_failed", "…"))   # it ended
    engine.lose("batch-…-r1-0-a1")                                                      # no trace of it any more
    engine.write("batch-…-r1-0-a1", b"a line of its log\n")
    engine.launches                                                                     # what was asked for, in order

With `agent=` each launch calls that function in a thread of its own: `agent(launch, told_to_stop)`, whose result is the
exit code; `told_to_stop` is an Event that `terminate` sets. An instance without an agent ends with EXIT_STOPPED as soon
as it is terminated, unless it is in `engine.stubborn`: then it is killed (exit code -9) after the grace.
`FakeEngine(machine=other.machine)` is the same machine seen by a server that was started again. `refuse` names
instances whose launch raises EngineFailed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidemill.domain.errors import EngineFailed
from tidemill.domain.ids import InstanceId
from tidemill.ports.engine import Engine, Launch, Observation, Resources, Seen
from tidemill_runtime.contract import EXIT_STOPPED, Fault

Agent = Callable[[Launch, threading.Event], int]
CAPACITY = Resources(2000, 4 << 30)


@dataclass
class Running:
    launch: Launch
    told_to_stop: threading.Event = field(default_factory=threading.Event)
    kill_at: float | None = None
    observation: Observation | None = None  # None: it runs


@dataclass
class Machine:
    """What outlives a server."""

    instances: dict[InstanceId, Running] = field(default_factory=dict)
    logs: dict[InstanceId, bytes] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


class FakeEngine(Engine):
    name = "fake"

    def __init__(
        self,
        capacity: Resources = CAPACITY,
        agent: Agent | None = None,
        machine: Machine | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.machine = machine or Machine()
        self.launches: list[Launch] = []
        self.refuse: set[InstanceId] = set()
        self.stubborn: set[InstanceId] = set()
        self._capacity = capacity
        self._agent = agent
        self._monotonic = monotonic

    def launch(self, launches: Sequence[Launch]) -> None:
        for one in launches:
            if one.instance in self.refuse:
                raise EngineFailed(f"instance {one.instance} could not be launched: the test refuses it.")
            with self.machine.lock:
                if one.instance in self.machine.instances:
                    continue
                running = self.machine.instances[one.instance] = Running(one)
                self.launches.append(one)
            if self._agent is not None:
                threading.Thread(target=self._run, args=(self._agent, running), daemon=True).start()

    def observe(self, instances: Sequence[InstanceId]) -> list[Observation]:
        return [self._observe(instance) for instance in instances]

    def terminate(self, instances: Sequence[InstanceId], grace_s: float) -> None:
        for instance in instances:
            with self.machine.lock:
                running = self.machine.instances.get(instance)
                if running is None or running.observation is not None:
                    continue
                running.told_to_stop.set()
                due = self._monotonic() + grace_s
                running.kill_at = due if running.kill_at is None else min(due, running.kill_at)
                if self._agent is None and instance not in self.stubborn:
                    self.end(instance, exit_code=EXIT_STOPPED)

    def forget(self, instances: Sequence[InstanceId]) -> None:
        for instance in instances:
            with self.machine.lock:
                running = self.machine.instances.pop(instance, None)
            if running is not None:
                running.told_to_stop.set()

    def logs(self, instance: InstanceId, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        data = self.machine.logs.get(instance, b"")[offset : offset + limit_bytes]
        return data, offset + len(data)

    def capacity(self) -> Resources:
        return self._capacity

    def end(self, instance: str, exit_code: int | None = 0, fault: Fault | None = None) -> None:
        """The instance ended so."""
        with self.machine.lock:
            known = InstanceId(instance)
            running = self.machine.instances.get(known)
            if running is not None and running.observation is None:
                evidence = self.machine.logs.get(known, b"").decode(errors="replace").strip()
                running.observation = Observation(known, Seen.EXITED, exit_code, fault, evidence)

    def lose(self, instance: str) -> None:
        """The machine knows nothing of the instance any more."""
        with self.machine.lock:
            self.machine.instances.pop(InstanceId(instance), None)

    def write(self, instance: str, data: bytes) -> None:
        """Appends to the instance's log."""
        with self.machine.lock:
            known = InstanceId(instance)
            self.machine.logs[known] = self.machine.logs.get(known, b"") + data

    def _observe(self, instance: InstanceId) -> Observation:
        with self.machine.lock:
            running = self.machine.instances.get(instance)
            if running is None:
                return Observation(instance, Seen.UNKNOWN)
            if running.kill_at is not None and self._monotonic() >= running.kill_at:
                self.end(instance, exit_code=-9)
            return running.observation or Observation(instance, Seen.RUNNING)

    def _run(self, agent: Agent, running: Running) -> None:
        self.end(running.launch.instance, exit_code=agent(running.launch, running.told_to_stop))
