"""The environments of runs, as the loop `place` sees to them: asked for at each look, noted when they are there.

A run whose requirements are being installed is STARTING and takes no capacity; those behind it go on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from tidemill.domain.life import Reason, TaskStatus
from tidemill.environments.builders import State
from tidemill.environments.cache import Environment
from tidemill.loops.context import Context, Job
from tidemill.loops.leases import WorkLease
from tidemill.ports.engine import Venv
from tidemill.services.life import change_status, explain_run
from tidemill.services.runs import locked_run, request_stop
from tidemill.store.base import Tx
from tidemill.store.events import add_event
from tidemill.store.records import RunEnvironment, RunRow
from tidemill.store.runs import set_run


@dataclass(frozen=True)
class Seen:
    """Whether a run may be placed. venv: what its instances are to be started in, None for the engine's own Python."""

    ready: bool
    venv: Venv | None = None


def see_to(context: Context, job: Job, lease: WorkLease, model: Path | None, code: Path | None) -> Seen:
    """Has the requirements of a run's folders installed, and writes down how far that is."""
    state = context.builders.ask(job.run.id, model, code)
    if _is_news(job.run, state):
        with context.store.write() as tx:
            lease.guard(tx)
            run = locked_run(tx, job.run.id)
            if run.stop_requested is None:
                _note(tx, run, state, context.clock.now())
    found = state.environment
    venv = Venv(found.venv, context.builders.lock_of(found)) if found is not None else None
    return Seen(not state.doing and state.failed is None, venv)


def _is_news(run: RunRow, state: State) -> bool:
    if state.failed is not None:
        return True
    if state.doing:
        return (run.reason, run.detail) != (Reason.INSTALLING, _sentence(state.doing))
    if state.environment is None and state.own is None:
        return False
    noted = run.requirements
    digest = None if state.environment is None else state.environment.digest
    return noted is None or noted.ready is None or noted.digest != digest


def _note(tx: Tx, run: RunRow, state: State, now: float) -> None:
    noted = run.requirements
    asked = noted.asked if noted is not None else now
    if state.failed is not None:
        request_stop(tx, run, Reason.ENVIRONMENT_FAILED, state.failed.message, now)
    elif state.doing:
        set_run(tx, run.id, {"environment": asdict(RunEnvironment(asked=asked))})
        if run.status is TaskStatus.INIT:
            change_status(
                tx, run, TaskStatus.STARTING, reason=Reason.INSTALLING, detail=_sentence(state.doing), now=now
            )
        else:
            explain_run(tx, run, Reason.INSTALLING, _sentence(state.doing), now)
    else:
        found = state.environment
        packages = dict(found.packages if found is not None else state.own or {})
        ready = RunEnvironment(asked=asked, ready=now, digest=found.digest if found else None, packages=packages)
        set_run(tx, run.id, {"environment": asdict(ready)})
        message = _told(found, waited=noted is not None)
        add_event(tx, run.owner, run.task, kind="run", subject=run.id, name="run.environment", message=message, now=now)
        if run.reason is Reason.INSTALLING:
            explain_run(tx, run, Reason.NONE, "", now)


def _sentence(doing: str) -> str:
    return f"{doing[:1].upper()}{doing[1:]}."


def _told(found: Environment | None, *, waited: bool) -> str:
    if found is None:
        return "The server's own Python satisfies the model's requirements."
    count = f"{len(found.packages)} package{'' if len(found.packages) == 1 else 's'}"
    if waited:
        return f"The model's requirements are installed: {count} in {found.seconds:.1f} s (environment {found.digest})."
    return f"The model's requirements were installed before: {count} (environment {found.digest})."
