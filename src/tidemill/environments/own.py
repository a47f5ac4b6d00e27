"""What the Python that runs us has already: whether it satisfies a package, and what of it the runtime needs elsewhere.

Called by `finding` (is an environment needed at all?) and by `building` (the runtime is linked into each environment).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tidemill.environments.requirements import Wanted

_RUNTIME = "tidemill-runtime"
_READERS = ("polars", "pyarrow", "zstandard")
"""What the runtime reads records with, where it is there. Not NumPy: a model that takes it brings its own; nor what
models are made with: that is for their requirements to say.
"""


@dataclass(frozen=True)
class Part:
    """A distribution that an environment borrows. paths: its packages, modules and metadata, absolute."""

    name: str
    version: str
    paths: tuple[Path, ...]


def own_versions(wanted: Wanted) -> dict[str, str] | None:
    """Versions of all that is asked for, if our own Python has it; None if anything is missing.

    What names a place or a hash, or source or binary packages only, never is: nobody can tell what was installed.
    """
    if wanted.others or any(option.startswith(("--no-binary", "--only-binary")) for option in wanted.options):
        return None
    found: dict[str, str] = {}
    asked: set[tuple[str, str]] = set()
    if not all(_satisfied(each, "", found, asked) for each in wanted.parsed):
        return None
    for bound in wanted.bounds:
        version = _version(bound.name) if _applies(bound, "") else None
        if version is not None and not bound.specifier.contains(version, prereleases=True):
            return None
    return dict(sorted(found.items()))


def identity() -> list[object]:
    """What of this machine and this Python decides whether an environment fits: it changes, another one is made."""
    return [
        sys.version,
        sysconfig.get_config_var("SOABI"),
        sysconfig.get_platform(),
        sys.base_prefix,
        [[part.name, part.version, [str(path) for path in part.paths]] for part in runtime_parts()],
    ]


@cache
def runtime_parts() -> tuple[Part, ...]:
    """`tidemill_runtime` and the distributions that it reads and speaks with, as they are installed here."""
    spec = importlib.util.find_spec("tidemill_runtime")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(next(iter(spec.submodule_search_locations))).absolute()  # an editable install lies elsewhere
    version = importlib.metadata.version(_RUNTIME)
    parts = {_RUNTIME: Part(_RUNTIME, version, (package,))}
    for need in [*runtime_bounds(), *_READERS]:
        _collect(Requirement(need), parts)
    return tuple(parts.values())


def runtime_bounds() -> list[str]:
    """Versions that the runtime works with, as constraints: requirements that bring another are told so."""
    lines = importlib.metadata.requires(_RUNTIME) or []
    return [line for line in lines if Requirement(line).marker is None]


def _collect(requirement: Requirement, parts: dict[str, Part]) -> None:
    name = canonicalize_name(requirement.name)
    if name in parts:
        return
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # it is not needed here either
    tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__", "bin")}
    paths = sorted(Path(str(found.locate_file(top))) for top in tops)
    parts[name] = Part(name, found.version, tuple(path for path in paths if path.exists()))
    for line in found.requires or ():
        need = Requirement(line)
        if _applies(need, ""):
            _collect(need, parts)


def _satisfied(requirement: Requirement, extra: str, found: dict[str, str], asked: set[tuple[str, str]]) -> bool:
    if not _applies(requirement, extra):
        return True
    name = canonicalize_name(requirement.name)
    version = _version(name)
    if version is None or requirement.url or not requirement.specifier.contains(version, prereleases=True):
        return False
    found[name] = version
    for more in requirement.extras:  # what an extra adds has to be there too
        if (name, more) in asked:
            continue
        asked.add((name, more))
        needs = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        added = [need for need in needs if not _applies(need, "")]
        if not all(_satisfied(need, more, found, asked) for need in added):
            return False
    return True


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
