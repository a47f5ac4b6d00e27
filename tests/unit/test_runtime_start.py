"""The agent stays light: what it imports is most of an instance's start, and keeps its forks safe."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "dataclasses",
    "http.client",
    "inspect",
    "msgspec",
    "numpy",
    "polars",
    "pyarrow",
    "ssl",
    "subprocess",
    "urllib3",
}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("agent", set()),
        ("models.kinds", set()),
        ("worker", set()),
        ("leasework", {"msgspec", "inspect", "dataclasses", "subprocess"}),
    ],
)
def test_imports(module: str, allowed: set[str]) -> None:
    code = f"import sys, json, tidemill_runtime.{module}; print(json.dumps(sorted(sys.modules)))"
    # Isolated from what a test run puts into the environment (coverage's own start-up hook).
    found = subprocess.run([sys.executable, "-c", code], env={}, check=True, capture_output=True, text=True).stdout
    assert HEAVY & set(json.loads(found)) - allowed == set()
