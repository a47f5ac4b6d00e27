"""The account adds up, and the same account is the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tidemill.domain.errors import InvalidValue
from tidemill.domain.receipt import InputAccount, Receipt, canonical
from tidemill_runtime.contract import Counts

RECEIPT = Receipt(
    task="batch-1",
    run="batch-1-r2",
    name="流失",
    status="SUCCEED",
    actor="operator",
    region="local",
    input=InputAccount("cos://data/in/", 2, 100, "ab" * 32),
    created=1700000000.123456,
    finished=1700000002.5,
    phases_s={"predict": 1.23456789, "load": 0.1},
    runs=("batch-1-r1", "batch-1-r2"),
    counts=Counts(10, 7, 2, 1),
)


def test_every_record_is_accounted_for() -> None:
    with pytest.raises(InvalidValue, match="10 inputs are not 7 ok, 2 failed and 0 skipped"):
        replace(RECEIPT, counts=Counts(10, 7, 2, 0))


def test_the_same_receipt_is_the_same_bytes() -> None:
    text = RECEIPT.to_json()
    assert text == replace(RECEIPT, phases_s={"load": 0.1, "predict": 1.2345678}).to_json()
    assert text != replace(RECEIPT, retries=1).to_json()
    assert RECEIPT.sha256 != replace(RECEIPT, retries=1).sha256
    values = json.loads(text)
    assert values["version"] == 1
    assert values["counts"] == {"inputs": 10, "ok": 7, "failed": 2, "skipped": 1}
    assert (values["created"], values["phases_s"]["predict"]) == (1700000000.123, 1.235)
    assert values["runs"] == ["batch-1-r1", "batch-1-r2"]
    assert "流失".encode() in text
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1


def test_text_that_is_no_unicode_stays_json() -> None:
    assert json.loads(canonical({"message": "\udc80 中"})) == {"message": "\udc80 中"}
