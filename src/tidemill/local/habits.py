"""What runs on this machine found out about their models, in one small file: where the next run with a model begins.

Nothing depends on it: a file that is gone or damaged is a run that measures again. Used by `runner`.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidemill.domain.tuning import joined, measured, pins_of
from tidemill.local.models import stamp_of
from tidemill_runtime.contract import Pins

FILE = "tuning.json"
_MODELS_MAX = 200


def habits_of(data: Path, folders: list[Path], named: str | None) -> Habits:
    """Of the model in these folders as they are now. data: the folder of all that Tidemill keeps. named: the function
    or command, where it is one.
    """
    return Habits(data / FILE, f"{stamp_of(folders)} {named or ''}".strip())


class Habits:
    """Of one model. path: of the file. model: what tells the model from others, and from itself after a change."""

    def __init__(self, path: Path, model: str) -> None:
        self._path = path
        self._model = model

    def hints(self) -> dict[str, Pins]:
        """By machine."""
        known = self._read().get(self._model)
        if not isinstance(known, dict):
            return {}
        return {machine: pins_of(values) for machine, values in known.items() if isinstance(values, dict)}

    def keep(self, tuning: Mapping[str, Any]) -> None:
        """Writes down what was measured, as a report says it. Of two runs at once the later one's findings stay."""
        found = measured(tuning)
        if found is None:
            return
        machine, pins = found
        models = self._read()
        known = self.hints()
        known[machine] = joined(known.get(machine, Pins()), pins)
        models.pop(self._model, None)
        models[self._model] = {name: vars(each) for name, each in known.items()}
        for oldest in list(models)[:-_MODELS_MAX]:
            del models[oldest]
        beside = self._path.with_name(f".{FILE}.{secrets.token_hex(4)}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                beside.write_text(json.dumps(models))
                beside.replace(self._path)
            finally:
                beside.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """Models, the one that ran last at the end."""
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_bytes())
            if isinstance(found, dict):
                return found
        return {}
