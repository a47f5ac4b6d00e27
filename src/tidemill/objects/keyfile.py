"""Files that are made once and then stay: keys and credentials. Used by `services` (credentials, tokens) and
`publishing` (signatures).

Whoever comes first makes the file, whole or not at all, for its owner alone; all others read that one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def made_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What is in the file; at first use, what `make` says (mode 0600, synced). The folder has to be there."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # never over one that is there
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()
