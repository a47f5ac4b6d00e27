"""A block of JSON lines is taken at once only if each line holds one value."""

import pytest

from tidemill_runtime.codec.jsonl import decode_block


@pytest.mark.parametrize(
    "block",
    [
        b'{"a":1}\n{"a":2}\n',
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\r\n{"a":2}\r\n',
        b'{"a":1}',
        b"[1]\n[2]\n",
        b'{"a":"}\\n{"}\n{"a":"\\"}"}\n',
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
        b'{"a":1} \n{"a":2}\n',
        b"{}\n[]\n",
        b"1\n2\n",
        b"",
    ],
)
def test_whatever_else_is_left_to_be_read_line_by_line(block: bytes) -> None:
    assert decode_block(memoryview(block)) is None
