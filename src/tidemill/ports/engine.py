"""What places instances. Five calls, prompt and idempotent by instance id; an engine never restarts anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tidemill.domain.ids import InstanceId
from tidemill_runtime.contract import Fault, Manifest


@dataclass(frozen=True)
class Resources:
    """millicores: 1/1000 core. gpu_percent: 1/100 card."""

    millicores: int
    memory_bytes: int
    gpu_percent: int = 0


@dataclass(frozen=True)
class Venv:
    """A Python environment that was made for a model. lock: a file that who uses it holds a shared lock on, as long as
    it does.
    """

    folder: Path
    lock: Path


@dataclass(frozen=True)
class Launch:
    """One instance to be started. image None: the engine's own environment. venv None: the engine's own Python."""

    instance: InstanceId
    manifest: Manifest
    resources: Resources
    image: str | None = None
    venv: Venv | None = None


class Seen(StrEnum):
    RUNNING = "running"  # the process or container exists
    EXITED = "exited"
    UNKNOWN = "unknown"  # the engine has no trace of it


@dataclass(frozen=True)
class Observation:
    """What the engine sees of one instance. exit_code: negative is a signal; None where it cannot be known."""

    instance: InstanceId
    seen: Seen
    exit_code: int | None = None
    fault: Fault | None = None
    evidence: str = ""


class Engine(Protocol):
    name: str

    def launch(self, launches: Sequence[Launch]) -> None:
        """Starts them; one that is there already is left alone. Raises EngineFailed naming the instance."""

    def observe(self, instances: Sequence[InstanceId]) -> list[Observation]:
        """What became of them, one observation each, in the same order."""

    def terminate(self, instances: Sequence[InstanceId], grace_s: float) -> None:
        """Asks them to end (SIGTERM), kills what is left after the grace. Returns at once; ended ones are no error."""

    def forget(self, instances: Sequence[InstanceId]) -> None:
        """Kills what is left of them and removes their scratch folders. Logs are kept until `drop_logs_before`."""

    def logs(self, instance: InstanceId, offset: int, limit_bytes: int) -> tuple[bytes, int]:
        """Output of the instance from a byte offset on, and the offset after it."""

    def capacity(self) -> Resources:
        """All that instances may use on this engine, taken or not."""
