"""Finding a model's class without running it, telling its shape, and reading what it returns."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tidemill_runtime.contract import Manifest
from tidemill_runtime.models import returned, shapes
from tidemill_runtime.models.kinds import PackageError, inspect_package
from tidemill_runtime.models.loading import load_model


def package(root: Path, source: str, where: str = "batch/model_service.py") -> Path:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return root


@pytest.mark.parametrize(
    ("source", "name", "line"),
    [
        ("class Model:\n    def load(self): ...\n    def predict(self, r): ...", "Model", 1),
        ("import tiinfer\n\nclass Mine(tiinfer.Model):\n    def predict(self, r): ...", "Mine", 3),
        ("from tiinfer import Model\nclass A: ...\nclass B(Model):\n    def load(self): ...", "B", 3),
        ("class A:\n    x = 1\nclass B:\n    def predict(self, batch: list[str]): ...", "B", 3),
        ("raise SystemExit  # not run\nclass A:\n    def load(self): ...\n    def predict(self, r): ...", "A", 2),
    ],
)
def test_the_class_is_found_without_running_anything(tmp_path: Path, source: str, name: str, line: int) -> None:
    info = inspect_package(str(package(tmp_path, source)))
    assert (info.class_name, info.line) == (name, line)
    assert info.entry == str(tmp_path / "batch/model_service.py")
    assert (info.kind, info.requirements) == ("service", None)


def test_the_code_folder_comes_first(tmp_path: Path) -> None:
    good = "class Model:\n    def load(self): ...\n    def predict(self, r): ..."
    model = package(tmp_path / "m", good, "model_service.py")
    (model / "requirements.txt").write_text("numpy\n")
    assert inspect_package(str(model)).entry == str(model / "model_service.py")
    assert inspect_package(str(model)).requirements == str(model / "requirements.txt")
    code = package(tmp_path / "c", good, "model_service.py")
    assert inspect_package(str(model), str(code)).entry == str(code / "model_service.py")


@pytest.mark.parametrize(
    ("source", "kind", "line", "words"),
    [
        (None, "no_entry", None, "model_service.py"),
        ("class Model:\n  def load(self:\n", "syntax_error", 2, "line 2"),
        ("x = 1\0", "syntax_error", 1, "model_service.py"),
        ("def predict(r): ...", "no_class", 1, "load and predict"),
        ("\nclass Helper:\n    def run(self): ...", "no_class", 2, "Helper"),
    ],
)
def test_packages_without_a_model(tmp_path: Path, source: str | None, kind: str, line: int | None, words: str) -> None:
    if source is not None:
        package(tmp_path, source)
    with pytest.raises(PackageError) as caught:
        inspect_package(str(tmp_path))
    assert caught.value.kind == kind
    if line is not None and sys.version_info >= (3, 10):
        assert caught.value.line == line
    assert words in caught.value.message


def model_class(body: str, **names: Any) -> Any:
    scope: dict[str, Any] = dict(names, __name__=__name__)
    exec("class Model:\n" + "".join(f"    {line}\n" for line in body.splitlines()), scope)
    return scope["Model"]


@pytest.mark.parametrize(
    ("body", "shape", "batched"),
    [
        ("def predict(self, request): ...", "record", False),
        ("def predict(self, request: dict): ...", "record", False),
        ("def predict(self, batch): ...", "record", True),
        ("def predict(self, batch: list[dict]): ...", "dict", True),
        ("def predict(self, xs: 'list[dict[str, int]]'): ...", "dict", True),
        ("def predict(self, lines: list[str]): ...", "str", True),
        ("def predict(self, lines: list[bytes]): ...", "bytes", True),
        ("batch = True\ndef predict(self, request): ...", "record", True),
        ("batch = 'numpy'\ndef predict(self, request): ...", "numpy", True),
        ("batch = False\ndef predict(self, batch): ...", "record", False),
        ("def predict(self, request: 'list[Unknown]'): ...", "record", False),
        ("predict = None", "record", False),
    ],
)
def test_what_a_batch_is(body: str, shape: str, batched: bool) -> None:
    assert shapes.of_model(model_class(body))[:2] == (shape, batched)


def test_preprocess_predict_postprocess(tmp_path: Path) -> None:
    package(
        tmp_path,
        "import tiinfer\nclass Mine(tiinfer.Model):\n"
        "    def load(self):\n        return True\n"
        "    def preprocess(self, r):\n        return r + 1\n"
        "    def postprocess(self, r):\n        return {'out': r, 'dir': self.model_dir}\n",
    )
    try:
        model = load_model(
            cast("Manifest", SimpleNamespace(model=str(tmp_path), code=None, function=None, command=None))
        )
    finally:
        sys.path.remove(str(tmp_path / "batch"))
        sys.modules.pop("tiinfer", None)
        sys.modules.pop("model_service", None)
    assert not model.batched
    assert model.call(1) == {"out": 2, "dir": str(tmp_path)}


class Array:
    def __init__(self, *values: Any) -> None:
        self.values = values
        self.shape = (len(values),) if values else ()

    def tolist(self) -> Any:
        return list(self.values)


def predictions(value: Any, count: int) -> list[Any]:
    return returned.listed(returned.checked(value, count))


def test_what_a_model_may_return() -> None:
    assert predictions((1, 2), 2) == [1, 2]
    assert predictions(iter([1, 2]), 2) == [1, 2]
    assert predictions(Array(1, 2), 2) == [1, 2]
    assert predictions({"a": [1, 2], "b": Array(3, 4)}, 2) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]


def test_what_is_kept_is_not_what_the_model_writes_to_next() -> None:
    numpy = pytest.importorskip("numpy")
    values = {"a": numpy.array([1.0]), "b": [2]}
    kept = returned.kept(values)
    values["a"][0] = values["b"][0] = 5
    assert (kept["a"].tolist(), kept["b"]) == ([1.0], [2])


def test_columns_stay_columns() -> None:
    columns = {"a": [1, 2], "b": Array(3, 4)}
    assert returned.checked(columns, 2) is columns


@pytest.mark.parametrize("value", [None, 5, "ab", [1], iter([1]), {"a": [1, 2], "b": [1]}, Array(), {"a": 1}, {}])
def test_what_it_may_not(value: Any) -> None:
    with pytest.raises(returned.WrongLength):
        returned.checked(value, 2)
