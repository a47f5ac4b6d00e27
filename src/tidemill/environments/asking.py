"""Whether a package has requirements at all: all that `tidemill run` loads of environments where it has none."""

from __future__ import annotations

from pathlib import Path

FILE_NAME = "requirements.txt"


def asks(*packages: Path | None) -> bool:
    """Whether one of these folders has a requirements.txt. What is in it is for `requirements` to read."""
    return any(root is not None and (root / FILE_NAME).is_file() for root in packages)
