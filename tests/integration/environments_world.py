"""Packages made for a test: wheels, and source packages whose building does what the test wants. No network needed."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

from tidemill.environments.building import Installer
from tidemill.environments.cache import Cache, Environment
from tidemill.environments.finding import Environments, Need

OFFLINE = "--no-index\n--find-links ./wheels\n"
BACKEND = """
import os, time, zipfile
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
{body}
    name = "slowpkg-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as out:
        out.writestr("slowpkg.py", "X = 1\\n")
        out.writestr("slowpkg-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: slowpkg\\nVersion: 1.0\\n")
        out.writestr("slowpkg-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        out.writestr("slowpkg-1.0.dist-info/RECORD", "")
    return name
"""


def wheel(folder: Path, name: str, version: str = "1.0", requires: tuple[str, ...] = (), body: str = "") -> Path:
    """A wheel with one module of that name, whose VERSION is its version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{name}.py": body or f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as out:
        record = ""
        for file, text in files.items():
            out.writestr(file, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{file},sha256={digest},{len(text)}\n"
        out.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


def source(folder: Path, body: str = "    pass") -> None:
    """A source package `slowpkg`; body: lines that run when it is built, indented."""
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "slowpkg"\nversion = "1.0"\n'
    )
    (folder / "backend.py").write_text(BACKEND.format(body=body))


def package(folder: Path, requirements: str, model: str = "") -> Path:
    """A model package with these requirements."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    if model:
        (folder / "batch").mkdir(exist_ok=True)
        (folder / "batch/model_service.py").write_text(model)
    return folder


def environments(
    root: Path,
    limit_bytes: int = 1 << 30,
    within_s: float = 60.0,
    *,
    source_builds: bool = True,
    isolated: bool = True,
    environ: dict[str, str] | None = None,
) -> Environments:
    kept = {"PATH": os.environ["PATH"], "UV_CACHE_DIR": str(root / "uv-cache"), **(environ or {})}
    return Environments(Cache(root / "environments", limit_bytes), Installer(within_s, source_builds, isolated, kept))


def needed(known: Environments, folder: Path) -> Need:
    need = known.need(folder)
    assert need is not None
    assert need.own is None
    return need


def provide(
    known: Environments,
    folder: Path,
    cancelled: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda _: None,
) -> Environment:
    return known.provide(needed(known, folder), cancelled=cancelled, tell=tell)
