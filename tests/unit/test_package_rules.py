"""Which folders can be packages, and what their digest is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue, TooLarge
from tidemill.domain.package import FILES_MAX, PackageFile, check_package, check_path, is_ignored, package_digest

SHA = "0" * 64


def file(path: str, sha256: str = SHA, size: int = 1, executable: bool = False) -> PackageFile:
    return PackageFile(path, sha256, size, executable)


def test_digest_is_pinned() -> None:
    """A digest that changed would make every stored package another one."""
    files = [file("model/权重.bin"), file("batch/model_service.py", executable=True)]
    assert package_digest(files) == "6813b0848e87a07f0fb21441c7910a196d6af97db7cee08d147d367e05c058f6"


@given(st.permutations([file("a"), file("b/c"), file("b/d"), file("é")]))
def test_digest_does_not_depend_on_order(files: list[PackageFile]) -> None:
    assert package_digest(files) == package_digest(sorted(files))


@pytest.mark.parametrize(
    "other",
    [file("a", "1" * 64), file("a", size=2), file("a", executable=True), file("b")],
    ids=["content", "size", "executable", "path"],
)
def test_digest_tells_files_apart(other: PackageFile) -> None:
    assert package_digest([file("a")]) != package_digest([other])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "C:/x",
        "a\x00b",
        "a\nb",
        "x" * 256,
        "\ud800",
        "/".join(["x" * 200] * 6),
    ],
)
def test_hostile_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidValue):
        check_path(path)


@pytest.mark.parametrize("path", ["a", "model/权重 1.bin", "a#b%20+c", "...", ".hidden", "a/b/c.d"])
def test_good_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "paths",
    [["a", "a"], ["a", "A"], ["A/x", "a/y"], ["a", "a/b"], ["caf\u00e9", "cafe\u0301"], ["a/b", "A"], []],
    ids=["twice", "case", "folder case", "file and folder", "unicode form", "file and folder by case", "nothing"],
)
def test_folders_that_cannot_be(paths: list[str]) -> None:
    with pytest.raises(InvalidValue):
        check_package([file(path) for path in paths])


def test_too_many_files() -> None:
    with pytest.raises(TooLarge):
        check_package([file(str(number)) for number in range(FILES_MAX + 1)])


def test_files_come_back_sorted() -> None:
    assert [found.path for found in check_package([file("b"), file("a/c"), file("a/b")])] == ["a/b", "a/c", "b"]


@pytest.mark.parametrize("path", ["__pycache__/x.pyc", "a/.git/HEAD", "x.pyc", ".DS_Store"])
def test_what_machines_leave_behind_is_ignored(path: str) -> None:
    assert is_ignored(path)
    assert not is_ignored("batch/model_service.py")
