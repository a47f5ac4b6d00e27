"""Finding the entry and the class of a model package without running any of it.

The control plane calls it when a model is imported and before a task starts; the worker calls it to know what to load,
so that both always agree. Standard library only, and nothing of the package is executed.
"""

from __future__ import annotations

import ast
import os
from typing import NamedTuple, Optional

ENTRY = "model_service.py"


class PackageInfo(NamedTuple):
    """entry: absolute path of the file; class_name: the class in it that is the model, at `line`.

    requirements: absolute path of the package's requirements.txt, None if it has none.
    """

    entry: str
    class_name: str
    line: int
    requirements: Optional[str]


class PackageError(Exception):
    """The package holds no model that could be called. kind: "no_entry" | "syntax_error" | "no_class".

    file: absolute path, where one is to blame; line: in it, from 1.
    """

    def __init__(self, kind: str, message: str, file: Optional[str] = None, line: Optional[int] = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.file = file
        self.line = line


def inspect_package(model: Optional[str], code: Optional[str] = None) -> PackageInfo:
    """The model class of a package (and a code folder, which comes first). Raises PackageError."""
    entry = find_entry(model, code)
    requirements = os.path.join(model, "requirements.txt") if model else ""
    name, line = _find_class(entry)
    return PackageInfo(entry, name, line, requirements if os.path.isfile(requirements) else None)


def find_entry(model: Optional[str], code: Optional[str]) -> str:
    """The absolute path of the file that holds the model's class: of the code folder first. Raises PackageError."""
    places = [os.path.join(code, ENTRY)] if code else []
    if model:
        places += [os.path.join(model, "batch", ENTRY), os.path.join(model, ENTRY)]
    for place in places:
        if os.path.isfile(place):
            return os.path.abspath(place)
    looked = " or ".join(places) or "nowhere: neither a model nor a code folder is given"
    raise PackageError("no_entry", f"the model has no {ENTRY} (looked for {looked}); put the model's class there")


def _find_class(entry: str) -> tuple[str, int]:
    try:
        with open(entry, "rb") as file:
            tree = ast.parse(file.read(), entry)
    except SyntaxError as error:
        line = error.lineno or 1
        message = f"{os.path.basename(entry)} line {line}: {error.msg}"
        raise PackageError("syntax_error", message, entry, line) from None
    except ValueError as error:  # null bytes
        raise PackageError(
            "syntax_error", f"{os.path.basename(entry)} is no Python source: {error}", entry, 1
        ) from None
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    models = {"Model"}
    for node in classes:
        if _is_model(node, models):
            return node.name, node.lineno
    if classes:
        named = ", ".join(node.name for node in classes)
        message = f"{ENTRY} has no class with the methods load and predict (it has {named})"
        raise PackageError("no_class", message, entry, classes[0].lineno)
    raise PackageError(
        "no_class", f"{ENTRY} has no class; a model is a class with the methods load and predict", entry, 1
    )


def _is_model(node: ast.ClassDef, models: set[str]) -> bool:
    """Whether it derives from a `Model` (tiinfer's or another), or has load and predict, or a predict of batches."""
    methods = {each.name: each for each in node.body if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
    predict = methods.get("predict")
    if _derives(node, models) and (predict or "preprocess" in methods or "load" in methods):
        return True
    if predict is None:
        return False
    arguments: list[ast.arg] = predict.args.posonlyargs + predict.args.args
    batched = len(arguments) > 1 and (arguments[1].annotation is not None or arguments[1].arg == "batch")
    return "load" in methods or batched


def _derives(node: ast.ClassDef, models: set[str]) -> bool:
    for base in node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        if name in models:
            return True
    return False
