"""Made documents of the JSON API: docs/reference/api.md, for people, and docs/reference/openapi.json, for tools.

`python -m tidemill.api.reference` writes them; a test fails while they are not what the code says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidemill.api.app import bare_app

_HEAD = """<!-- Made by `python -m tidemill.api.reference`. Do not edit. -->

# JSON API

Every call needs the credential that the server made at its first start (`root-credentials.json` in its data folder):

```sh
curl -H "Authorization: Bearer $SECRET_ID.$SECRET_KEY" http://127.0.0.1:7400/api/v1/tasks
```

- `/healthz` and `/readyz` answer without one; nothing else does. The server itself gives this document for tools at
  `/openapi.json`; it is also in [openapi.json](openapi.json).
- Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problems: `code` is stable, `field` names what is wrong,
  `remedy` says what to do. 4xx: nothing was done. 503: try again, after `Retry-After`.
- Lists have `items`, `next_cursor` (pass it as `cursor`; null on the last page), and `total` where it is known. Things
  that come or go meanwhile never shift a page.
- `POST /api/v1/tasks` under an `Idempotency-Key` may be repeated: the same key and body give the same task, another
  body is a 409.
- Times are UTC (RFC 3339); durations and sizes carry their unit in the name.
- Unknown keys in requests are refused. Answers may gain keys: ignore those that you do not know.
"""
_FOLDER = Path(__file__).parents[3] / "docs" / "reference"


def documents() -> dict[str, str]:
    """Text by file name."""
    described = bare_app().openapi()
    return {
        "api.md": _HEAD + "\n" + "\n".join(_operations(described)) + "\n" + "\n".join(_models(described)) + "\n",
        "openapi.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n",
    }


def _operations(described: dict[str, Any]) -> Iterator[str]:
    tag = ""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                yield f"## {tag.capitalize()}\n"
            yield from _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### {method} {path}\n"
    yield f"{_one_line(operation['description'])} (`{operation['operationId']}`)\n"
    parameters = [each for each in operation.get("parameters", ()) if each["in"] != "path"]
    if parameters:
        yield "| parameter | |\n|---|---|"
        for each in parameters:
            yield f"| `{each['name']}` ({each['in']}) | {_parameter(each)} |"
        yield ""
    if "requestBody" in operation:
        kind, content = next(iter(operation["requestBody"]["content"].items()))
        yield from _example(f"Request, `{kind}`:", content.get("example"))
    statuses = operation["responses"]
    good = next(status for status in statuses if status.startswith("2"))
    for kind, content in statuses[good].get("content", {}).items():
        yield from _example(f"Answer {good}, `{kind}`{_named(content)}:", content.get("example"))
    others = ", ".join(status for status in statuses if status[0] in "45")
    yield f"Problems: {others}.\n" if others else ""


def _parameter(each: dict[str, Any]) -> str:
    schema = each["schema"]
    choices = _choices(schema)
    words = [each.get("description") or schema.get("description", "")]
    if choices:
        words.append("One of " + ", ".join(f"`{choice}`" for choice in choices) + ".")
    if schema.get("default") is not None:
        words.append(f"Default `{schema['default']}`.")
    if each.get("required"):
        words.append("Required.")
    return _one_line(" ".join(word for word in words if word))


def _choices(schema: dict[str, Any]) -> list[str]:
    return list(schema.get("enum", ()))


def _named(content: dict[str, Any]) -> str:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return f" ({_link(name)})" if name else ""


def _example(title: str, example: Any) -> Iterator[str]:
    if example is None:
        return
    yield f"{title}\n"
    if isinstance(example, str):
        yield f"```\n{example.rstrip()}\n```\n"
    else:
        yield f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```\n"


def _models(described: dict[str, Any]) -> Iterator[str]:
    yield "## Answers\n"
    for name, schema in sorted(described["components"]["schemas"].items()):
        yield f"### {name}\n"
        if schema.get("description"):
            yield f"{_one_line(schema['description'])}\n"
        if "enum" in schema:
            yield ", ".join(f"`{value}`" for value in schema["enum"] if value) + "\n"
            continue
        yield "| key | type | |\n|---|---|---|"
        for key, field in schema.get("properties", {}).items():
            yield f"| `{key}` | {_type(field)} | {_one_line(field.get('description', ''))} |"
        yield ""


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return _link(field["$ref"].rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(each) for each in field["anyOf"]))
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object":
        inner = field.get("additionalProperties")
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return str(field.get("format", field.get("type", "anything"))).replace("date-time", "time")


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    for name, text in documents().items():
        (_FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
