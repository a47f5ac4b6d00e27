"""The YAML loader of task files: safe, plain values stay text, keys are unique. Imported only where there is a file to
read.
"""

from __future__ import annotations

from typing import Any

import yaml


class PlainLoader(yaml.SafeLoader):
    """Resolves null and `<<` only: everything else is text, which the field's type makes a number or a truth value."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own interface
        first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} was given in line {seen[key.value]} already", key.start_mark
                    )
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def line_numbers(node: yaml.Node) -> dict[str, int]:
    """Dotted key → line, from 1, of everything below a node."""
    lines: dict[str, int] = {}
    pending: list[tuple[str, yaml.Node]] = [("", node)]
    visited: set[int] = set()  # aliases may make a circle
    while pending:
        above, found = pending.pop()
        if id(found) in visited:
            continue
        visited.add(id(found))
        if isinstance(found, yaml.MappingNode):
            children = [(str(key.value), value, key.start_mark.line) for key, value in found.value]
        elif isinstance(found, yaml.SequenceNode):
            children = [(str(index), value, value.start_mark.line) for index, value in enumerate(found.value)]
        else:
            continue
        for name, value, line in children:
            key = f"{above}.{name}" if above else name
            lines[key] = line + 1
            pending.append((key, value))
    return lines
