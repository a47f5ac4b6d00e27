"""What a benchmark hands back, and how it is shown: a value, its goal, and whether it was met."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Measured:
    """One number. goal None: for information. higher: whether more is better. note: what it was measured on."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    higher: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.higher else self.value <= self.goal


def show(measured: Sequence[Measured], *, as_json: bool) -> None:
    if as_json:
        rows = [{**asdict(one), "met": one.met} for one in measured]
        print(json.dumps({"machine": machine(), "measured": rows}, indent=2))
        return
    print(machine())
    width = max(len(one.name) for one in measured)
    for one in measured:
        sign = "≥" if one.higher else "≤"
        goal = f"{sign} {one.goal:g} {one.unit}" if one.goal is not None else ""
        verdict = {True: "met", False: "MISSED", None: ""}[one.met]
        print(
            f"{one.name:<{width}}  {_number(one.value):>10} {one.unit:<6}  {goal:<16} {verdict:<7} {one.note}".rstrip()
        )


def machine() -> str:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    today = datetime.now(UTC).date().isoformat()
    return (
        f"{today}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
