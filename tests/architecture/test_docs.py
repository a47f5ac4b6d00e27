"""Rules about the repository that no linter checks: help of targets, numbers of ADRs, sizes of modules, prints."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = [ROOT / "src/tidemill", ROOT / "runtime/src/tidemill_runtime"]
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py") if "versions" not in path.parts)
"""Without migrations: lists of what tables there were, drafted by Alembic."""
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 80
MAY_PRINT = [ROOT / "src/tidemill/cli", ROOT / "src/tidemill/demo.py"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_target_of_the_makefile_has_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split()
    targets = re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)
    helped = re.findall(r"^([a-z][a-z-]*):.* ## \S", makefile, re.MULTILINE)
    assert sorted(targets) == sorted(phony)
    assert sorted(helped) == sorted(targets)
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[1] for line in shown.splitlines()] == helped


def test_decisions_are_numbered_once_and_have_a_title() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert decisions
    numbers = Counter(path.name[:4] for path in decisions)
    assert [number for number, times in numbers.items() if times > 1] == []
    for path in decisions:
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name), path.name
        assert path.read_text(encoding="utf-8").startswith("# "), path.name


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "runtime/README.md"]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:")
    ]
    broken = [f"{name(document)}: {target}" for document, target in links if not (document.parent / target).exists()]
    assert broken == []


def test_modules_stay_short() -> None:
    sizes = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {path: lines for path, lines in sizes.items() if lines > MODULE_LINES_MAX} == {}


def test_functions_stay_short() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{name(path)}:{node.name}"] = lines
    assert long == {}


def test_libraries_do_not_print() -> None:
    printing = []
    for path in MODULES:
        if any(path.is_relative_to(allowed) for allowed in MAY_PRINT):
            continue
        printing += [
            f"{name(path)}:{node.lineno}"
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            # To a stream that is named, as an instance does to its log, is a message and no stray print.
            and not any(keyword.arg == "file" for keyword in node.keywords)
        ]
    assert printing == []


def test_every_module_says_why_it_exists() -> None:
    silent = [name(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_bytes()))]
    assert silent == []


def test_test_files_have_names_of_their_own() -> None:
    times = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [each for each, count in times.items() if count > 1] == []


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-demo.lock", "runtime/requirements-test.lock"])
def test_locks_name_no_host_and_no_path(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert not re.search(r"https?://|file:|--index|--extra-index|--find-links|^/", text, re.MULTILINE)
    unhashed = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line) and not line.endswith("\\")]
    assert unhashed == []
