"""A block of JSON lines is taken at once only if each line holds one value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidemill_runtime.codec.jsonl import decode_block, jsonl_reader
from tidemill_runtime.codec.records import columns_of
from tidemill_runtime.contract import Access, Cursor, InputFormat, InputObject, Lease, PartTarget, local_etag


@pytest.mark.parametrize(
    "block",
    [
        b'{"a":1}\n{"a":2}\n',
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\r\n{"a":2}\r\n',
        b'{"a":1}',
        b"[1]\n[2]\n",
        b'{"a":"}\\n{"}\n{"a":"\\"}"}\n',
        b'{"a":1} \n {"a":2}\n',
        b"{}\n[]\n",
        b"1\n2\n",
    ],
)
def test_one_value_on_each_line_is_taken_at_once(block: bytes) -> None:
    values = decode_block(memoryview(block))
    assert values is not None
    assert len(values) == len(block.splitlines())


@pytest.mark.parametrize(
    "block",
    [
        b'{"a":1} {"a":3}\n\n',  # two values on a line, and a blank line that makes up for it
        b'{"a":1}{"a":3}\n{"a":\n1}\n',  # … and a value on two lines
        b'{"a":\n1}\n',
        b'{"a":1}\n\n{"a":2}\n',
        b'{"a":1}\n{"a":2}\n\n',
        b'{"a":1}{"b":1}\n\n{"c":\n1}\n',
    ],
)
def test_whatever_else_is_left_to_be_read_line_by_line(block: bytes) -> None:
    assert decode_block(memoryview(block)) is None


CHOSEN = [
    b'{"b":1,"a":{"x":[2]},"more":"text"}',
    b'{"a":2,"b":3}',
    b'{"a":2}',
    b"{}",
    b"[1,2]",
    b"5",
    b'"ab"',
    b'{"a":1,"a":2}',
    b'{"a":1,"more":"\xff"}',
    b'{"a":1,"more":tru}',
    b'{"\\u0061":7,"b":null}',
]


@pytest.mark.parametrize("columns", [["a", "b"], ["b", "a"], ["a"], ["none"], ["a", "ä"], []])
@pytest.mark.parametrize("carried", [(), ("a",), ("more", "b")])
def test_chosen_keys_are_those_of_the_whole_record(
    tmp_path: Path, columns: list[str], carried: tuple[str, ...]
) -> None:
    path = tmp_path / "a"
    for lines in ([each] for each in CHOSEN), [[each] * 3 for each in CHOSEN], [CHOSEN]:
        for block in lines:
            path.write_bytes(b"\n".join(block) + b"\n")
            whole = items(path, columns, None)
            chosen = items(path, columns, carried)
            assert [
                list(each.items()) if isinstance(each, dict) else each for each in chosen.items(0, chosen.size)
            ] == [list(each.items()) if isinstance(each, dict) else each for each in whole.items(0, whole.size)]
            assert list(chosen.bad) == list(whole.bad)
            fields = whole.fields(0, whole.size)
            assert chosen.carried(list(carried), 0, chosen.size) == columns_of(fields, list(carried))


def items(path: Path, columns: list[str], carried: tuple[str, ...] | None) -> Any:
    stat = path.stat()
    etag = local_etag(stat.st_size, stat.st_mtime_ns, stat.st_ino)
    listed = InputObject(0, "a.jsonl", stat.st_size, etag, Access("path", str(path)))
    lease = Lease(0, 1, [listed], 0, -1, Cursor(), PartTarget("p", Access("path", "p")))
    (block,) = jsonl_reader(lease, InputFormat("jsonl", columns=columns), {}, "dict", carried).blocks()
    return block
