"""Finding the class of a `model_service.py`, or a function of a module, in its source: nothing of it is run.

Standard library only. Used by `kinds`.
"""

from __future__ import annotations

import ast
import os
from typing import Optional

from tidemill_runtime.models.declared import PackageError

ENTRY = "model_service.py"


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


def find_class(entry: str) -> tuple[str, int]:
    """(name, line) of the class that is the model. Raises PackageError."""
    tree = _parsed(entry)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    models = {"Model", "BatchModel"}
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


def find_function(file: str, module: str, name: str) -> int:
    """The line of a function in its module's source; 0 where it is imported or made there. Raises PackageError."""
    tree = _parsed(file)
    first = name.partition(".")[0]
    functions = []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if node.name == first:
                return node.lineno
            if isinstance(node, ast.FunctionDef):
                functions.append(node.name)
    bound = _bound(tree)
    if first in bound or "*" in bound:
        return 0
    has = f"it has {', '.join(functions[:8])}" if functions else "it has none"
    raise PackageError(
        "no_function", f"{module} has no function {name!r} at its top ({has})", file, 1 if not functions else None
    )


def _bound(tree: ast.Module) -> set[str]:
    """Names that a module binds in other ways than by def: imports, assignments, also below `if` and `try`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.If, ast.Try)):
            names.update(each.name for each in node.body if isinstance(each, ast.FunctionDef))
    return names


def _parsed(file: str) -> ast.Module:
    try:
        with open(file, "rb") as source:
            return ast.parse(source.read(), file)
    except SyntaxError as error:
        line = error.lineno or 1
        message = f"{os.path.basename(file)} line {line}: {error.msg}"
        raise PackageError("syntax_error", message, file, line) from None
    except ValueError as error:  # null bytes
        raise PackageError("syntax_error", f"{os.path.basename(file)} is no Python source: {error}", file, 1) from None
