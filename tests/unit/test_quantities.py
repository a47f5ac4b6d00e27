from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue
from tidemill.wire.quantities import (
    format_bytes,
    format_seconds,
    parse_bytes,
    parse_millicores,
    parse_seconds,
    parse_share,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4Gi", 4 * 2**30),
        ("4GiB", 4 * 2**30),
        ("4GB", 4 * 10**9),
        ("4g", 4 * 10**9),
        ("1.5 Mi", 3 * 2**19),
        ("512", 512),
        (512, 512),
        (512.0, 512),
        ("0", 0),
        ("10 kb", 10_000),
    ],
)
def test_sizes(text: float | str, value: int) -> None:
    assert parse_bytes(text, field="memory") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90s", 90),
        ("15m", 900),
        ("15 min", 900),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("1 h 30 m", 5400),
        ("500ms", 0.5),
        ("1.5h", 5400),
        (90, 90),
        (0.25, 0.25),
        (1e-5, 1e-5),
        ("0.5", 0.5),
    ],
)
def test_durations(text: float | str, value: float) -> None:
    assert parse_seconds(text, field="deadline") == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("2", 2000), (2, 2000), ("0.5", 500), (0.5, 500), ("500m", 500)])
def test_cores(text: float | str, value: int) -> None:
    assert parse_millicores(text, field="cpu") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10%", 0.1),
        ("10 %", 0.1),
        ("100%", 1.0),
        (0.25, 0.25),
        ("0.25", 0.25),
        ("20", 20),
        (20, 20),
        (0, 0),
        (1.0, 1.0),
    ],
)
def test_shares_and_counts(text: float | str, value: float) -> None:
    found = parse_share(text, field="tolerance")
    assert found == value
    assert isinstance(found, float) is isinstance(value, float)


NO_QUANTITIES = ["", "x", "-1", "4 apples", "1e3", "٣", True, float("nan"), float("inf"), -0.5, "9" * 400, [], None]


@pytest.mark.parametrize("value", NO_QUANTITIES, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize("parse", [parse_bytes, parse_seconds, parse_millicores, parse_share])
def test_what_is_no_quantity_is_refused_by_field_and_value(parse, value) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidValue) as caught:
        parse(value, field="the.field")
    assert caught.value.field == "the.field"
    assert repr(value)[:60] in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["101%", "1.5", "2.5"])
def test_a_share_is_not_more_than_all(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_share(text, field="tolerance")


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_bytes, parse_seconds, parse_millicores, parse_share):
        with contextlib.suppress(InvalidValue):
            assert parse(text, field="x") >= 0


def test_shown_as_people_write_them() -> None:
    assert [format_bytes(size) for size in (0, 512, 1536, 3 * 2**30)] == ["0 B", "512 B", "1.5 KiB", "3.0 GiB"]
    assert [format_seconds(s) for s in (0.42, 12.34, 245, 7380)] == ["0.42 s", "12.3 s", "4 min 05 s", "2 h 03 min"]
