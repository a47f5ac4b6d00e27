"""`python -m benchmarks [control|start|workloads|memory|shapes] [--scale 0.05] [--only w4] [--rounds 5] [--json]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import control, memory, shapes, start, workloads
from benchmarks.data import WORKLOADS
from benchmarks.report import Measured, show
from benchmarks.shapes import SHAPES


def main() -> None:
    options = _options()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    known = SHAPES if options.what == "shapes" else WORKLOADS
    only = options.only.split(",") if options.only else list(known)
    unknown = set(only) - set(known)
    if unknown:
        raise SystemExit(f"--only: {', '.join(sorted(unknown))}: not among {', '.join(known)}")
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="tidemill-benchmarks-", dir=options.folder) as made:
        folder = Path(made)
        if options.what in ("all", "start"):
            measured += start.run(folder)
        if options.what in ("all", "control"):
            measured += control.run(folder, options.scale)
        if options.what == "workloads":
            kept = options.folder or folder
            measured += workloads.run(kept, only, options.scale, options.rounds)
        if options.what == "memory":
            measured += memory.run(options.folder or folder, only, options.scale)
        if options.what == "shapes":
            measured += shapes.run(options.folder or folder, only, options.scale, options.rounds)
    show(measured, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory on this machine.")
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("all", "control", "start", "workloads", "memory", "shapes"),
        help="control: the server. start: `tidemill run` of one record. all: both. "
        "workloads: W1-W4 against bare loops. memory: the peak, for 10^5 records and more. "
        "shapes: tiny files, large files, slow models, far stores",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="1: 10^6 tasks, and workloads of about 8 GB in all")
    parser.add_argument("--only", help=f"comma between them: {', '.join((*WORKLOADS, *SHAPES))}")
    parser.add_argument("--rounds", type=int, default=5, help="of each workload")
    parser.add_argument("--folder", type=Path, help="where data goes; inputs of workloads are kept and used again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
