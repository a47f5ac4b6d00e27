"""`python -m benchmarks [all|control|start|workloads] [--scale 0.05] [--only w4,w1_csv] [--rounds 5] [--json]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import control, start, workloads
from benchmarks.data import WORKLOADS
from benchmarks.report import Measured, show


def main() -> None:
    options = _options()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    only = options.only.split(",") if options.only else list(WORKLOADS)
    unknown = set(only) - set(WORKLOADS)
    if unknown:
        raise SystemExit(f"--only: {', '.join(sorted(unknown))}: not among {', '.join(WORKLOADS)}")
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
    show(measured, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory on this machine.")
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=("all", "control", "start", "workloads"),
        help="control: the server. start: `tidemill run` of one record. all: both. workloads: W1-W4 against bare loops",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="1: 10^6 tasks, and workloads of about 8 GB in all")
    parser.add_argument("--only", help=f"workloads, comma between them: {', '.join(WORKLOADS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each workload")
    parser.add_argument("--folder", type=Path, help="where data goes; inputs of workloads are kept and used again")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
