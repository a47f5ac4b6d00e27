"""The right to work on something for a loop: taken for a time, renewed meanwhile, checked when it is applied.

With one server nobody else asks for it; with several, this is how they share the work. Used by `loop` and the handlers.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tidemill.domain.errors import Temporary, TidemillError
from tidemill.ports.clock import Clock
from tidemill.store.base import Store, Tx
from tidemill.store.tables import work

TTL_S = 15.0


class LeaseLost(TidemillError):
    """Somebody else works on it by now; what was done here is dropped."""


@dataclass(frozen=True)
class WorkLease:
    """subject: a run, or what else is worked on. token: nobody has had it before."""

    subject: str
    loop: str
    token: str

    def guard(self, tx: Tx) -> None:
        """Raises LeaseLost, which undoes the transaction, unless this is still the one who works on it."""
        mine = (work.c.subject == self.subject, work.c.loop == self.loop, work.c.token == self.token)
        if tx.execute(sa.select(work.c.token).where(*mine).with_for_update()).first() is None:
            raise LeaseLost(f"{self.loop} of {self.subject} was taken over.")


def is_held(tx: Tx, subject: str, loops: Sequence[str], now: float) -> bool:
    """Whether any of these loops works on the subject, as far as is known."""
    held = (work.c.subject == subject, work.c.loop.in_(loops), work.c.until > now)
    return tx.execute(sa.select(work.c.token).where(*held).limit(1)).first() is not None


class WorkLeases:
    """All leases of one server. server: its name, the same after a restart, so that it takes back what was its."""

    def __init__(self, store: Store, clock: Clock, server: str, ttl_s: float = TTL_S) -> None:
        self._store = store
        self._clock = clock
        self._server = server
        self._ttl_s = ttl_s
        self._held: dict[str, WorkLease] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="tidemill-leases", daemon=True)

    def start(self) -> None:
        """Forgets what this server held before it was killed, and keeps from now on what is held."""
        with self._store.write() as tx:
            tx.execute(work.delete().where(work.c.token.startswith(f"{self._server}.", autoescape=True)))
        self._keeper.start()

    def stop(self) -> None:
        self._closed.set()
        self._keeper.join()

    @contextlib.contextmanager
    def hold(self, subject: str, loop: str) -> Iterator[WorkLease | None]:
        """The lease, for as long as the block lasts; None if another has it."""
        lease = self._take(subject, loop)
        if lease is None:
            yield None
            return
        with self._lock:
            self._held[lease.token] = lease
        try:
            yield lease
        finally:
            with self._lock:
                del self._held[lease.token]
            with contextlib.suppress(Temporary), self._store.write(durable=False) as tx:  # or it runs out
                tx.execute(work.delete().where(work.c.token == lease.token))

    def _take(self, subject: str, loop: str) -> WorkLease | None:
        now = self._clock.now()
        lease = WorkLease(subject, loop, f"{self._server}.{secrets.token_hex(8)}")
        values = {"token": lease.token, "until": now + self._ttl_s}
        with self._store.write(durable=False) as tx:
            insert = tx.insert(work).values(subject=subject, loop=loop, account="", region="", **values)
            taken = insert.on_conflict_do_update(
                index_elements=["subject", "loop"], set_=values, where=work.c.until <= now
            ).returning(work.c.token)
            return lease if tx.execute(taken).first() is not None else None

    def _keep(self) -> None:
        while not self._closed.wait(self._ttl_s / 3):
            with self._lock:
                tokens = list(self._held)
            if not tokens:
                continue
            with contextlib.suppress(Temporary), self._store.write(durable=False) as tx:
                until = self._clock.now() + self._ttl_s
                tx.execute(work.update().where(work.c.token.in_(tokens)).values(until=until))
