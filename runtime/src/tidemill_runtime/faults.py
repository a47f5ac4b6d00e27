"""Errors inside an instance, and how they are told.

FatalError   the instance cannot go on; becomes the contract's Fault (kind is a key of FATAL_FAULTS)
Orphaned     the agent is gone: the worker ends quietly
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Optional

from tidemill_runtime import wire


def log(text: str) -> None:
    """A line of the runtime's own in the instance's log, which is otherwise what the user's code prints."""
    sys.stderr.write(f"tidemill: {text}\n")


class FatalError(Exception):
    """Ends the instance. kind: a key of `contract.FATAL_FAULTS`; evidence: the line that shows it."""

    def __init__(self, kind: str, message: str, evidence: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.evidence = evidence
        self.traceback = traceback

    def fault(self) -> dict[str, Any]:
        return wire.fault(self.kind, self.message, self.evidence, self.traceback)


class Orphaned(Exception):
    """The other end of a worker's socket was closed."""


def write_exit(folder: str, code: int, fault: Optional[dict[str, Any]]) -> None:
    """exit.json tells a server that was restarted meanwhile how this instance ended."""
    path = os.path.join(folder, "exit.json")
    try:
        with open(path + ".tmp", "w") as file:
            json.dump({"code": code, "fault": fault}, file)
        os.rename(path + ".tmp", path)
    except OSError as error:
        log(f"{path} could not be written: {error}")
