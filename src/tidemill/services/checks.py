"""What a task's check has found, as JSON in the run's row: loops read there where data is and how, and need not look
again.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tidemill.domain.location import Location
from tidemill.domain.plan import Earlier
from tidemill.domain.splits import Cut, Layout
from tidemill.planning.check import Checked
from tidemill.planning.formats import Formats, Kind
from tidemill_runtime.contract import InputFormat, ResultFormat


def dump_checked(checked: Checked, *, kind: str | None = None) -> dict[str, Any]:
    """As JSON; `load_checked` reads it back. kind: what the model was found to be, for views to show."""
    found: dict[str, Any] = msgspec.to_builtins(checked)
    return found if kind is None else {**found, "kind": kind}


def load_checked(values: dict[str, Any]) -> Checked:
    """What `dump_checked` wrote."""
    formats, since = values["formats"], values.get("since")
    return Checked(
        input=Location(**values["input"]),
        output=Location(**values["output"]),
        formats=Formats(
            input=InputFormat(**formats["input"]),
            result=ResultFormat(**formats["result"]),
            cut=Cut(formats["cut"]),
            layout=Layout(formats["layout"]),
            by_name=Kind(**formats["by_name"]) if formats["by_name"] else None,
            uncut=formats.get("uncut", ""),
        ),
        include=tuple(values["include"]),
        exclude=tuple(values["exclude"]),
        since=Earlier(**{**since, "folder": Location(**since["folder"])}) if since else None,
    )
