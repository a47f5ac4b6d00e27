"""Bodies of requests and answers of model servers, and what may be said of a command in a package."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill_runtime.contract import Command
from tidemill_runtime.models.bodies import Bodies
from tidemill_runtime.models.commands import read_command
from tidemill_runtime.models.outside import RecordFault
from tidemill_runtime.models.returned import WrongLength


def bodies(plain: bool = False, files: bool = False, **options: Any) -> Bodies:
    return Bodies(Command(["x"], "http", **options), plain=plain, files=files)


RECORDS = [{"a": 1, "b": "x,y"}, {"a": None, "b": "z"}]


@pytest.mark.parametrize(
    ("options", "body"),
    [
        ({}, b'[{"a":1,"b":"x,y"},{"a":null,"b":"z"}]'),
        ({"key": "instances"}, b'{"instances":[{"a":1,"b":"x,y"},{"a":null,"b":"z"}]}'),
        ({"content_type": "application/jsonlines"}, b'{"a":1,"b":"x,y"}\n{"a":null,"b":"z"}\n'),
        ({"content_type": "text/csv; header=absent"}, b'1,"x,y"\n,z\n'),
    ],
)
def test_requests(options: dict[str, Any], body: bytes) -> None:
    assert bodies(**options).write(RECORDS) == body


def test_requests_of_texts_and_files(tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"\x00\xff")
    assert bodies(plain=True, content_type="text/plain").write(["a b", "c"]) == b"a b\nc\n"
    assert bodies(plain=True, content_type="text/csv").write(["a b", "c"]) == b"a b\nc\n"
    assert bodies(plain=True).write(["a b"]) == b'["a b"]'
    assert bodies(plain=True, content_type="application/x-text").write(["a\nb"]) == b"a\nb"
    assert bodies(plain=True, files=True, content_type="image/png").write([str(tmp_path / "a.png")]) == b"\x00\xff"
    assert bodies(records="one").write([{"a": 1}]) == b'{"a":1}'
    with pytest.raises(ValueError, match="line break"):
        bodies(plain=True, content_type="text/plain").write(["a\nb"])
    with pytest.raises(ValueError, match="CSV cannot say"):
        bodies(content_type="text/csv").write([{"a": [1]}])


@pytest.mark.parametrize(
    ("type_", "body", "found"),
    [
        ("application/json", b"[1, 2]", [1, 2]),
        ("application/json; charset=utf-8", b'{"predictions": [[1], [2]], "outputs": []}', [[1], [2]]),
        ("application/json", b'{"scores": [0.5, 1], "model": "m"}', [0.5, 1]),
        ("application/json", b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("", b"[1,2]", [1, 2]),
        ("application/jsonlines", b'"x"\n\n'.replace(b"\n\n", b"\r\n2"), ["x", 2]),
        ("text/csv", b"a,1\nb,2.5\n", [["a", 1], ["b", 2.5]]),
        ("text/csv", b'0.5\n"x,y"\n', [0.5, "x,y"]),
        ("text/plain", b"yes\n7", ["yes", 7]),
    ],
)
def test_answers(type_: str, body: bytes, found: list[Any]) -> None:
    assert bodies().read(body, type_, 2) == found


@pytest.mark.parametrize(
    ("body", "raised", "words"),
    [
        (b"[1]", WrongLength, "1 predictions for 2"),
        (b"3", WrongLength, "one int"),
        (b'{"a": [1, 2], "b": [1, 2]}', WrongLength, "a, b"),
        (b"{oops", RecordFault, "cannot be read as application/json"),
        (b"", RecordFault, "cannot be read"),
    ],
)
def test_answers_that_are_none(body: bytes, raised: type[Exception], words: str) -> None:
    with pytest.raises(raised, match=words):
        bodies().read(body, "application/json", 2)


def test_a_request_has_no_more_than_it_may() -> None:
    records = [{"x": number} for number in range(100)]
    assert [len(each) for each in bodies().requests(records, 3, 10_000)] == [33, 33, 34]
    assert [len(each) for each in bodies().requests(records[:2], 3, 10_000)] == [1, 1]
    assert all(len(bodies().write(each)) <= 200 for each in bodies().requests(records, 1, 200))
    assert len(bodies(records="one").requests(records, 3, 10_000)) == 100


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("python x.py", "object"),
        ({"run": "x"}, "needs 'protocol'"),
        ({"run": "x", "protocol": "grpc"}, "lines, http"),
        ({"run": [], "protocol": "lines"}, "not empty"),
        ({"run": "x 'y", "protocol": "lines"}, "quotation"),
        ({"run": "x", "protocol": "lines", "port": 1}, "for the protocol http"),
        ({"run": "x", "protocol": "http", "prot": 1}, "unknown key 'prot'"),
        ({"run": "x", "protocol": "http", "port": "80"}, "whole number"),
        ({"run": "x", "protocol": "http", "connections": 0}, "more than 0"),
    ],
)
def test_commands_of_packages_that_are_refused(values: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_command(values)


def test_a_command_of_a_package() -> None:
    found = read_command({"run": "sh 'a b'", "protocol": "http", "load_timeout": 5, "max_request": 100})
    wanted = Command(["sh", "a b"], "http", load_timeout_s=5, max_request_bytes=100)
    assert vars(found) == vars(wanted)
