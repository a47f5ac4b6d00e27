"""From a package to the Python that it runs in: read, asked of our own Python, else found or built in the cache.

`tidemill run` uses it directly, a server through `builders`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.environments.building import Installer
from tidemill.environments.cache import Built, Cache, Environment
from tidemill.environments.own import identity, own_versions
from tidemill.environments.requirements import Wanted, read_requirements
from tidemill.settings import EnvironmentsSection

_FORMAT = 1
"""Raised when environments are built in another way: none made before is used then."""
_DIGEST_LETTERS = 32


@dataclass(frozen=True)
class Need:
    """What a package with requirements needs. own: their versions, where our own Python has all of them; else an
    environment with this digest.
    """

    wanted: Wanted
    digest: str
    own: dict[str, str] | None


class Environments:
    """cache: where they are kept. Threads and processes may use the same folder at once."""

    def __init__(self, cache: Cache, installer: Installer) -> None:
        self.cache = cache
        self._installer = installer

    def need(self, *packages: Path | None) -> Need | None:
        """What the package folders (model and code) ask for; None where that is nothing. Raises InvalidValue."""
        wanted = read_requirements(*packages)
        if wanted is None:
            return None
        own = own_versions(wanted)
        known = json.dumps([_FORMAT, wanted.fingerprint(), identity()]).encode()
        return Need(wanted, hashlib.sha256(known).hexdigest()[:_DIGEST_LETTERS], own)

    def provide(self, need: Need, *, cancelled: Callable[[], bool], tell: Callable[[str], None]) -> Environment:
        """The environment, built if need be. tell: gets what is being done, in words, if anything is.

        Raises EnvironmentFailed, and Cancelled when `cancelled` says so.
        """
        log = self.cache.log_of(need.digest)

        def build(folder: Path) -> Built:
            return self._installer.build(folder, need.wanted, log, cancelled=cancelled, tell=tell)

        found = self.cache.find(need.digest)
        if found is None:
            found = self.cache.provide(
                need.digest,
                build,
                cancelled=cancelled,
                waiting=lambda: tell("waiting for another that installs the same"),
            )
            self.cache.sweep(time.time())
        return found

    def hold(
        self, need: Need, *, cancelled: Callable[[], bool], tell: Callable[[str], None]
    ) -> tuple[Environment, int]:
        """As `provide`, with a descriptor that keeps it from being removed while it, or a copy of it, is open."""
        while True:
            self.provide(need, cancelled=cancelled, tell=tell)
            held = self.cache.hold(need.digest)
            if held is not None:
                return held


def open_cache(section: EnvironmentsSection, data: Path) -> Cache:
    """The cache of a data folder."""
    return Cache(data / "environments", section.size)


def open_environments(
    section: EnvironmentsSection, data: Path, environ: Mapping[str, str] = os.environ, *, isolated: bool
) -> Environments:
    """isolated: on a server. environ: of the user, for where packages come from."""
    installer = Installer(section.install_within_s, section.source_builds, isolated, environ)
    return Environments(open_cache(section, data), installer)
