"""Prints `passed failed` of a JUnit report of pytest; ends with 1 when no test ran. For .ci/run."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def main(report: Path) -> int:
    if not report.exists():
        print("0 0")
        return 1
    ran = failed = 0
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        ran += int(suite.get("tests", "0")) - int(suite.get("skipped", "0"))
        failed += int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    print(max(ran - failed, 0), failed)
    return 0 if ran else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
