"""The contracts of import-linter leave no module out."""

from __future__ import annotations

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
