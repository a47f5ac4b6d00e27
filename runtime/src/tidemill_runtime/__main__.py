"""`python -m tidemill_runtime <manifest.json>`: how every engine starts an instance."""

from __future__ import annotations

import sys

from tidemill_runtime.agent import main

sys.exit(main(sys.argv[1:]))
