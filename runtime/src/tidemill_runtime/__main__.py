"""`python -m tidemill_runtime <manifest.json>`, or `-` for standard input: how every engine starts an instance."""

from __future__ import annotations

import os
import sys

from tidemill_runtime.agent import main


def _stand_back() -> None:
    """Where the runtime was put on the path beside the user's environment, that environment's libraries come first."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if home in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        sys.path[:] = [*(place for place in sys.path if place != home), home]


_stand_back()
sys.exit(main(sys.argv[1:]))
