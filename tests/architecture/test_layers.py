"""The contracts of import-linter leave no module out."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_NO_LAYER = {
    "tidemill.__init__": "the public face; loads what it names when asked",
    "tidemill.__main__": "python -m tidemill",
    "tidemill.crashpoints": "a leaf that any layer may pass",
}


def test_every_module_of_the_control_plane_has_a_layer() -> None:
    contracts = ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    layered = {
        word.strip("()")
        for line in contracts["importlinter:contract:layers"]["layers"].splitlines()
        for word in line.split()
        if word not in {":", "|"}
    }
    package = ROOT / "src/tidemill"
    there = {
        f"tidemill.{path.stem}"
        for path in package.iterdir()
        if (path.is_dir() and (path / "__init__.py").exists()) or path.suffix == ".py"
    }
    assert there - layered - set(OF_NO_LAYER) == set()


def test_an_instance_never_asks_what_time_it_is() -> None:
    """Its clock may be an hour off that of its coordinator: it counts seconds, and judges nothing by a date."""
    asking = re.compile(r"\btime\.(time|time_ns|localtime|gmtime)\(|\b(now|utcnow|today)\(")
    found = {
        str(path): asking.findall(path.read_text())
        for path in (ROOT / "runtime/src").rglob("*.py")
        if asking.search(path.read_text())
    }
    assert found == {}
