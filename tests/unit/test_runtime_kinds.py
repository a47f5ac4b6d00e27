"""What a package is, by its files and by tidemill.json, without running any of it; loading a function of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tidemill_runtime import BatchModel
from tidemill_runtime.contract import Manifest
from tidemill_runtime.faults import FatalError
from tidemill_runtime.models import shapes
from tidemill_runtime.models.kinds import PackageError, PackageInfo, inspect_package
from tidemill_runtime.models.loading import load_model

SERVICE = "class Model:\n    def load(self): ...\n    def predict(self, r): ...\n"
TREE = "tree\nversion=v4\n"


def package(root: Path, files: dict[str, str]) -> str:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


@pytest.mark.parametrize(
    ("files", "kind", "entry"),
    [
        ({"model_service.py": SERVICE, "MLmodel": "", "a.onnx": ""}, "service", "model_service.py"),
        ({"MLmodel": "", "model.pkl": "", "requirements.txt": ""}, "mlflow", "MLmodel"),
        ({"model/MLmodel": ""}, "mlflow", "model/MLmodel"),
        ({"a.onnx": "", "labels.txt": "cat\ndog\n"}, "onnx", "a.onnx"),
        ({"model/a.joblib": ""}, "sklearn", "model/a.joblib"),
        ({"a.PKL": "", "readme.md": ""}, "sklearn", "a.PKL"),
        ({"m.txt": TREE, "requirements.txt": "x"}, "lightgbm", "m.txt"),
        ({"m.model": TREE.replace("\n", "\r\n")}, "lightgbm", "m.model"),
        ({"a.onnx": "", "b.onnx": "", "tidemill.json": '{"file": "b.onnx"}'}, "onnx", "b.onnx"),
        ({"a.onnx": "", "b.pkl": "", "tidemill.json": '{"kind": "sklearn"}'}, "sklearn", "b.pkl"),
        ({"weights.bin": "", "tidemill.json": '{"kind": "onnx", "file": "weights.bin"}'}, "onnx", "weights.bin"),
        ({"deep/MLmodel": "", "tidemill.json": '{"file": "deep"}'}, "mlflow", "deep/MLmodel"),
        ({"a.pkl": "", "tidemill.json": '{"method": "predict_proba"}'}, "sklearn", "a.pkl"),
    ],
)
def test_the_kind_is_found(tmp_path: Path, files: dict[str, str], kind: str, entry: str) -> None:
    info = inspect_package(package(tmp_path, files))
    assert (info.kind, info.entry, info.file) == (kind, str(tmp_path / entry), str(tmp_path / entry))
    declared = json.loads(files.get("tidemill.json", "{}"))
    assert info.options == {key: value for key, value in declared.items() if key != "kind"}


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({}, "no_entry", "no model_service.py, MLmodel, *.onnx"),
        ({"a.onnx": "", "b.pkl": ""}, "several", "a.onnx, b.pkl; say in tidemill.json which"),
        ({"m.txt": "not a tree"}, "no_entry", "LightGBM text model"),
        ({"tidemill.json": '{"file": "gone.onnx"}'}, "no_entry", "'gone.onnx'"),
        ({"tidemill.json": '{"kind": "onnx", "file": "../a.onnx"}'}, "bad_file", "leads out of the package"),
        ({"tidemill.json": '{"kind": "onnx", "file": "/etc/passwd"}'}, "bad_file", "leads out of the package"),
        ({"a.bin": "", "tidemill.json": '{"file": "a.bin"}'}, "bad_file", 'say with "kind"'),
        ({"a.onnx": "", "tidemill.json": '{"kind": "sklearn"}'}, "no_entry", "no sklearn model"),
        ({"a.onnx": "", "tidemill.json": '{"method": "predict"}'}, "bad_file", "'method' is for sklearn"),
        ({"tidemill.json": '{"methd": "predict"}'}, "bad_file", "did you mean 'method'?"),
        ({"tidemill.json": '{"kind": "sklern"}'}, "bad_file", "one of service, mlflow"),
        ({"tidemill.json": '{"columns": "age"}'}, "bad_file", "'columns' has to be a list of texts"),
        ({"tidemill.json": '{"columns": []}'}, "bad_file", "'columns' has to be a list of texts"),
        ({"tidemill.json": "[1]"}, "bad_file", "one object"),
        ({"tidemill.json": '{"kind":\n nothing}'}, "bad_file", "line 2 is no JSON"),
        ({"tidemill.json": " " * 70_000}, "bad_file", "larger than 64 KiB"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, files: dict[str, str], kind: str, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        inspect_package(package(tmp_path, files))
    assert caught.value.kind == kind
    assert words in caught.value.message


def test_the_code_folder_comes_first_and_the_task_before_both(tmp_path: Path) -> None:
    model = package(tmp_path / "m", {"a.onnx": "", "tidemill.json": '{"file": "a.onnx"}', "mine.py": "def f(r): ..."})
    code = package(tmp_path / "c", {"b.onnx": "", "tidemill.json": '{"file": "b.onnx"}'})
    assert inspect_package(model, code).entry == str(tmp_path / "c" / "b.onnx")
    assert inspect_package(model, code, "mine:f")[:4] == ("function", "mine:f", "", 1)


FUNCTIONS = {
    "a/b.py": "import os\nfrom json import dumps as say\n\ndef one(r): ...\n\nclass C: ...\n"
    "if os.name:\n    def two(r): ...\n",
    "star.py": "from os import *\n",
    "broken.py": "def f(:\n",
    "pack/__init__.py": "\ndef f(r): ...\n",
}


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("a.b:one", 4),
        ("a.b:say", 0),
        ("a.b:two", 0),
        ("a.b:C.method", 6),
        ("star:x", 0),
        ("pack:f", 2),
        ("json:dumps", 0),
    ],
)
def test_functions_are_found(tmp_path: Path, function: str, line: int) -> None:
    info = inspect_package(package(tmp_path, FUNCTIONS), None, function)
    assert (info.kind, info.entry, info.line, info.file) == ("function", function, line, None)


@pytest.mark.parametrize(
    ("function", "kind", "words"),
    [
        ("a.b:three", "no_function", "a.b has no function 'three' at its top (it has one)"),
        ("gone:f", "no_function", "there is no module 'gone' (looked in"),
        ("a.b", "no_function", "write it like module:function"),
        ("a/b:one", "no_function", "write it like module:function"),
        ("broken:f", "syntax_error", "broken.py line 1"),
    ],
)
def test_functions_that_are_not_there(tmp_path: Path, function: str, kind: str, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        inspect_package(package(tmp_path, FUNCTIONS), None, function)
    assert caught.value.kind == kind
    assert words in caught.value.message


def test_what_requirements_bring_is_not_looked_for_here(tmp_path: Path) -> None:
    folder = package(tmp_path, {"requirements.txt": "gone\n", "tidemill.json": '{"function": "gone.deep:f"}'})
    info = inspect_package(folder)
    assert info == PackageInfo(
        "function", "gone.deep:f", "", 0, f"{folder}/requirements.txt", {"function": "gone.deep:f"}
    )


def loaded(folder: str, function: str | None = None) -> Any:
    manifest = SimpleNamespace(model=folder, code=None, function=function, command=None)
    before = list(sys.path)
    try:
        return load_model(cast("Manifest", manifest))
    finally:
        sys.path[:] = before
        for name in [name for name, module in sys.modules.items() if folder in str(getattr(module, "__file__", ""))]:
            del sys.modules[name]


def listed(x: list[str]) -> list[int]:
    return [len(each) for each in x]


def test_the_shape_of_a_function() -> None:
    assert shapes.of_function(listed)[:2] == ("str", True)
    assert shapes.of_function(lambda batch: batch)[:2] == ("record", True)
    assert shapes.of_function(lambda record: record)[:2] == ("record", False)
    assert shapes.of_function(len)[:2] == ("record", False)


def test_loading_functions(tmp_path: Path) -> None:
    folder = package(
        tmp_path, {"mine.py": "class A:\n    @staticmethod\n    def f(r): return r + 1\nx = 1\nasync def g(r): ...\n"}
    )
    assert loaded(folder, "mine:A.f").call(1) == 2
    for name, words in {
        "mine:x": "is no function, it is of the type int",
        "mine:A.h": "mine has no A.h",
        "mine:g": "async",
    }.items():
        with pytest.raises(FatalError, match=words):
            loaded(folder, name)
    declared = package(tmp_path, {"tidemill.json": '{"function": "mine:A.f", "batch": "str"}'})
    model = loaded(declared)
    assert (model.shape, model.batched) == ("str", True)


def test_a_module_that_fails_says_why(tmp_path: Path) -> None:
    folder = package(tmp_path, {"bad.py": "f = 1 / 0\n", "needs.py": "import surely_not_there\nf = len\n"})
    for name, kind in {"bad:f": "model_load_failed", "needs:f": "missing_module"}.items():
        with pytest.raises(FatalError) as caught:
            loaded(folder, name)
        assert caught.value.kind == kind


def test_a_library_that_is_missing_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, file in {
        "onnxruntime": "a.onnx",
        "lightgbm": "m.txt",
        "sklearn": "a.pkl",
        "mlflow": "MLmodel",
    }.items():
        for name in [name for name in sys.modules if name.startswith(f"{library}.")]:  # of tests before this one
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)
        folder = package(tmp_path / library, {file: TREE})
        with pytest.raises(FatalError) as caught:
            loaded(folder)
        assert caught.value.kind == "missing_module"
        assert "install tidemill-runtime[" in caught.value.message


def test_the_typed_base(tmp_path: Path) -> None:
    source = (
        "import numpy\nfrom tidemill_runtime import BatchModel\n\n"
        "class Mine(BatchModel):\n    def predict(self, batch: numpy.ndarray): return batch[:, 0] + len(self.folder)\n"
    )
    numpy = pytest.importorskip("numpy")
    model = loaded(package(tmp_path, {"model_service.py": source}))
    assert (model.shape, model.batched) == ("numpy", True)
    assert model.call(numpy.zeros((2, 1))).tolist() == [len(str(tmp_path))] * 2
    model.close()
    assert shapes.of_model(BatchModel)[:2] == ("record", True)
    with pytest.raises(NotImplementedError):
        BatchModel("x").predict([])
