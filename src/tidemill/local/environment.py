"""The Python that the instances of a run are started with: our own, or that of an environment made for the model.

Used by `runner` before it starts any. What makes environments is imported only where a model has requirements.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.engines.children import Children
from tidemill.environments.asking import asks
from tidemill.settings import Settings

if TYPE_CHECKING:
    from tidemill.environments.finding import Environments, Need


@dataclass
class RunEnvironment:
    """What a run's model needs, as `look_at` found it. digest: of the environment, None: our own Python.

    packages: names and versions, of the environment, or of what was asked for and is here already.
    """

    digest: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    _environments: Environments | None = None
    _need: Need | None = None
    _fd: int = -1

    def install(self, children: Children, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> bool:
        """Has `children` be started in the environment, which is built if need be; False if it was cancelled.

        tell: gets what is being done, in words. Raises EnvironmentFailed.
        """
        if self._environments is None or self._need is None:
            return True
        from tidemill.environments.cache import Cancelled  # loaded by `look_at` long ago

        try:
            found, self._fd = self._environments.hold(self._need, cancelled=cancelled, tell=tell)
        except Cancelled:
            return False
        self.packages = found.packages
        children.use(found.venv, self._fd)
        return True

    def close(self) -> None:
        """Lets go of it; the instances that are left hold it themselves. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def look_at(settings: Settings, *packages: Path | None) -> RunEnvironment:
    """What the package folders (model and code) ask for. Raises InvalidValue for requirements that cannot be."""
    if not asks(*packages):
        return RunEnvironment()
    from tidemill.environments.finding import open_environments  # 30 ms that most runs need not pay

    environments = open_environments(settings.environments, settings.data, isolated=False)
    need = environments.need(*packages)
    if need is None:
        return RunEnvironment()
    if need.own is not None:
        return RunEnvironment(packages=need.own)
    return RunEnvironment(need.digest, {}, environments, need)
