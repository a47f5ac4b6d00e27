"""What runs found out about running a model, by machine: written as instances report it, read when one is launched."""

from __future__ import annotations

import sqlalchemy as sa

from tidemill.domain.tuning import joined, pins_of
from tidemill.store.base import Tx
from tidemill.store.habits_tables import habits
from tidemill.store.records import Owner
from tidemill_runtime.contract import Pins

_MACHINES_MAX = 32
"""Of so many machines, those that were heard of last, an instance is told."""


def hints_for(tx: Tx, account: str, model: str) -> dict[str, Pins]:
    """By machine."""
    rows = tx.execute(
        sa.select(habits.c.machine, habits.c.tuning)
        .where(habits.c.account == account, habits.c.model == model)
        .order_by(habits.c.updated.desc(), habits.c.machine)
        .limit(_MACHINES_MAX)
    )
    return {row.machine: pins_of(row.tuning) for row in rows}


def keep_habit(tx: Tx, owner: Owner, model: str, machine: str, pins: Pins, now: float) -> None:
    """Writes down what was measured; what was not, stays as it was known."""
    place = (habits.c.account == owner.account, habits.c.model == model, habits.c.machine == machine)
    known = tx.execute(sa.select(habits.c.tuning).where(*place)).scalar_one_or_none()
    tuning = vars(joined(pins_of(known or {}), pins))
    insert = tx.insert(habits).values(model=model, machine=machine, **owner.values, tuning=tuning, updated=now)
    tx.execute(
        insert.on_conflict_do_update(
            index_elements=["account", "model", "machine"],
            set_={"tuning": insert.excluded.tuning, "updated": insert.excluded.updated},
        )
    )
