"""The one place that puts a server together: store, objects, engine, services, loops, doors. For `tidemill serve`.

DIR/store.db                 the database, unless the settings name another
DIR/root-credentials.json    the operator's key; DIR/secret.key: what tokens of instances are signed with
DIR/runner.url               where instances find the server, wherever it listens after a restart
DIR/buckets, blobs, environments, packages, process
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tidemill.api.app import create_app
from tidemill.coordination.coordinator import CoordinatorSettings
from tidemill.engines.machine import machine_resources
from tidemill.engines.process import ProcessEngine
from tidemill.environments.builders import Builders
from tidemill.environments.finding import open_environments
from tidemill.loops.context import Context
from tidemill.loops.leases import WorkLeases
from tidemill.loops.loop import Handler, Loop
from tidemill.loops.place import PlaceLoop
from tidemill.loops.plan import PlanLoop
from tidemill.loops.publish import PublishLoop
from tidemill.loops.reconcile import ReconcileLoop
from tidemill.loops.release import ReleaseLoop
from tidemill.objects.region import open_region
from tidemill.ports.clock import Clock, SystemClock
from tidemill.ports.engine import Engine, Resources
from tidemill.publishing.signing import SERVER, SERVER_KEY_FILE, Signer
from tidemill.services.access import root_credential
from tidemill.services.facade import Services, assemble
from tidemill.services.regions import Region
from tidemill.services.runner import Runner
from tidemill.services.runs import PLACE
from tidemill.services.tokens import Tokens, secret_key
from tidemill.settings import ProcessSection, ServerSection, Settings
from tidemill.store.base import Store, sqlite_url
from tidemill.store.migrate import migrate

RUNNER_URL_FILE = "runner.url"
_STORAGE_RETRY_S = 10.0
"""How long a storage that does not answer is tried by the loops, before a run is shown as paused."""
_DOOR_RETRY_S = 3.0
"""The same where somebody waits for the answer."""
_log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Server:
    """A server that is put together. services: what the doors are given. The caller holds the data folder."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        services: Services,
        context: Context,
        leases: WorkLeases,
        loops: list[Loop],
    ) -> None:
        self.services = services
        self.store = store
        self.context = context
        self._settings = settings
        self._leases = leases
        self._loops = {loop.handler.name: loop for loop in loops}
        store.on_wake = self._wake

    def app(self) -> App:
        """The ASGI application; its lifespan starts and stops the loops."""
        doors = create_app(self.services, body_bytes=self._settings.limits.body_bytes)

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await self._live(receive, send)
            else:
                await doors(scope, receive, send)

        return application

    def start(self) -> None:
        """Instances find the server from now on, imports that were cut off are finished, and the loops run."""
        address = _address(self._settings.server)
        file = self._settings.data / RUNNER_URL_FILE
        new = file.with_suffix(".new")
        new.write_text(address + "\n")
        new.replace(file)
        self.services.models.finish_creating()
        self._leases.start()
        for loop in self._loops.values():
            loop.start()

    def begin_stop(self) -> None:
        """Long answers end, and no loop begins anything. Returns at once; may be called from a signal handler."""
        self.context.closing.set()

    def stop(self) -> None:
        """Ends after the work in hand. Instances go on without it."""
        self.begin_stop()
        for loop in self._loops.values():
            loop.stop()
        self.context.builders.stop()
        self._leases.stop()
        self.store.close()

    def _wake(self, names: set[str]) -> None:
        for name in names:
            if name in self._loops:
                self._loops[name].wake()

    async def _live(self, receive: Receive, send: Send) -> None:
        """ASGI's lifespan protocol."""
        from anyio.to_thread import run_sync  # the doors' own; the loops need no event loop

        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await run_sync(self.start)
                except Exception as error:
                    _log.exception("the server cannot start")
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.startup.complete"})
            else:
                await run_sync(self.stop)
                await send({"type": "lifespan.shutdown.complete"})
                return


def build_server(settings: Settings, *, clock: Clock | None = None, engine: Engine | None = None) -> Server:
    """A server over its data folder, which exists and is the caller's alone. Makes keys and database at first start.

    clock, engine: others than the system's and the process engine, for tests.
    Raises Conflict for a database of a newer version, StoreUnavailable where it does not answer.
    """
    clock = clock or SystemClock()
    data = settings.data
    store = Store(settings.store.url or sqlite_url(data / "store.db"))
    migrate(store)
    key = secret_key(data)
    # Twice as long as an instance waits for a server: who is heard at all can be heard again.
    tokens = Tokens(key, 2 * settings.limits.orphan_after_s)
    engine = engine or ProcessEngine(data / "process", _capacity(settings.process))
    regions = {name: _region(settings, name, engine, _STORAGE_RETRY_S) for name in settings.regions}
    asked_by_people = {name: _region(settings, name, engine, _DOOR_RETRY_S) for name in settings.regions}
    closing = threading.Event()
    limits = settings.limits
    runner = Runner(
        store,
        regions,
        tokens,
        clock,
        CoordinatorSettings(limits.lease_ttl_s, limits.grant_ttl_s, limits.report_every_s),
    )
    loops: list[Loop] = []
    signer = Signer(data / SERVER_KEY_FILE, SERVER)
    services = assemble(
        store,
        asked_by_people,
        clock,
        data,
        limits,
        [root_credential(data)],
        report=runner.report,
        receipt_key=signer.public_key,
        problems=lambda: _problems(loops),
        closing=closing.is_set,
    )
    builders = Builders(open_environments(settings.environments, data, isolated=True))
    context = Context(
        store=store,
        clock=clock,
        regions=regions,
        limits=limits,
        tokens=tokens,
        builders=builders,
        runner_url=lambda region: settings.regions[region.name].runner_url or f"file:{data / RUNNER_URL_FILE}",
        make_folder=services.packages.materialise,
        sign=signer.sign,
        started=clock.now(),
        closing=closing,
    )
    leases = WorkLeases(store, clock, hashlib.sha256(key).hexdigest()[:16])
    handlers: list[Handler] = [
        PlanLoop(context),
        PlaceLoop(context),
        ReconcileLoop(context),
        PublishLoop(context),
        ReleaseLoop(context, services.packages.sweep, builders.sweep),
    ]
    loops += [Loop(handler, leases, clock) for handler in handlers]
    builders.done = next(loop for loop in loops if loop.handler.name == PLACE).wake
    return Server(settings, store, services, context, leases, loops)


def _region(settings: Settings, name: str, engine: Engine, retry_s: float) -> Region:
    section = settings.regions[name]
    # Plain paths are allowed here; that only the operator's key may name them is for the services to say.
    objects = open_region(section.buckets, settings.data, local_paths=True, retry_s=retry_s)
    return Region(name, objects, engine, tuple(section.buckets))


def _capacity(section: ProcessSection) -> Resources:
    machine = machine_resources()
    return Resources(section.cpu or machine.millicores, section.memory or machine.memory_bytes, machine.gpu_percent)


def _problems(loops: list[Loop]) -> list[str]:
    """Why the loops are not as they should be, in words."""
    dead = [f"the loop {loop.handler.name} does not run" for loop in loops if not loop.alive]
    return dead + [f"the loop {loop.handler.name}: {loop.error}" for loop in loops if loop.error]


def _address(server: ServerSection) -> str:
    """Where instances on this machine reach the server."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
    host = local.get(server.host, server.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
