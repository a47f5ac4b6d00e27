"""OpenAPI of the JSON API: what FastAPI finds, made complete: the credential, problems, an example for every
operation.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidemill.api.examples import EXAMPLES, Example
from tidemill.api.gate import PUBLIC
from tidemill.wire.requests import BlobsRequest, ModelPatch, PackageRequest, ResumeRequest, VersionRequest
from tidemill.wire.schema import json_schema
from tidemill.wire.taskfile import TaskFile

_SECTIONS = (TaskFile, ResumeRequest, PackageRequest, BlobsRequest, VersionRequest, ModelPatch)
_DESCRIPTION = """
Batch prediction: a folder in, predictions out, everything released.

Every call needs `Authorization: Bearer <secret_id>.<secret_key>`, except `/healthz` and `/readyz`. Errors are RFC 9457
problems with a stable `code`, the `field` that is wrong and a `remedy`. Lists give `next_cursor`; pass it as
`cursor` for the next page.
"""


def describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        description=_DESCRIPTION.strip(),
        routes=app.routes,
    )
    document["components"]["securitySchemes"] = {
        "credential": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "<secret_id>.<secret_key>",
            "description": "Made at the first start of a server in `DIR/root-credentials.json`.",
        }
    }
    document["security"] = [{"credential": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete(path, operation)
            if method == "head":
                operation["responses"]["200"].pop("content", None)
    schemas = document["components"]["schemas"]
    named = {each.__name__: _bare(json_schema(each)) for each in _SECTIONS}
    document["paths"] = _by_name(document["paths"], named)
    for name, schema in schemas.items():
        schemas[name] = {key: _by_name(value, named) for key, value in schema.items()}
    schemas |= {section.__name__: json_schema(section) for section in _SECTIONS}
    for unused in ("HTTPValidationError", "ValidationError"):  # we answer with problems instead
        document["components"]["schemas"].pop(unused, None)
    return document


def _by_name(found: Any, named: dict[str, Any]) -> Any:
    """The same, with our sections by reference: the framework has written each out wherever it is used."""
    if isinstance(found, list):
        return [_by_name(each, named) for each in found]
    if not isinstance(found, dict):
        return found
    bare = _bare(found) if found.get("type") == "object" else {}
    for name, schema in named.items():
        if bare and {**bare, "description": ""} == {**schema, "description": ""}:
            own = {} if bare["description"] == schema["description"] else {"description": bare["description"]}
            return {"$ref": f"#/components/schemas/{name}", **own}
    return {key: _by_name(value, named) for key, value in found.items()}


def _bare(found: Any) -> Any:
    """Without what the framework adds (titles) and leaves out (nulls)."""
    if isinstance(found, list):
        return [_bare(each) for each in found]
    if not isinstance(found, dict):
        return found
    return {
        key: _bare(value)
        for key, value in found.items()
        if value is not None and (key != "title" or isinstance(value, dict))
    }


def _complete(path: str, operation: dict[str, Any]) -> None:
    if path in PUBLIC:
        operation["security"] = []
    responses = operation["responses"]
    for status, response in responses.items():
        content = response.get("content", {})
        if "application/problem+json" in content:
            content.pop("application/json", None)
        if status == "422" and "application/json" in content:
            responses["422"] = {
                "description": "A value is not allowed; `field` says which.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
    responses["default"] = {
        "description": "Any other problem.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    _exemplify(operation, EXAMPLES[operation["operationId"]])


def _exemplify(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in example.parameters:
            parameter["example"] = example.parameters[parameter["name"]]
    if example.request is not None:
        content = operation["requestBody"]["content"]
        next(iter(content.values()))["example"] = example.request
    for status, response in operation["responses"].items():
        if status.startswith("2") and example.response is not None:
            content = response.setdefault("content", {"application/json": {}})
            next(iter(content.values()))["example"] = example.response
