"""A block of records: what every codec makes of a piece of an input object, and what worker and isolation work on.

A *row* is anything that the account counts: a record, a record that cannot be read, a blank line. An *item* is a record
that was read. On the happy path the two coincide and nothing is kept per row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Optional, Protocol

COLUMNAR = ("numpy", "pandas", "polars", "arrow")
"""Shapes of a model's batch that are columns (see `models.shapes`): records are read into columns for them."""


class Bad(NamedTuple):
    """Why a row is no item. fault: one of `contract.RECORD_FAULTS`. raw: the row, where the block has it not."""

    fault: str
    type: str
    message: str
    raw: Optional[bytes] = None


class Records(Protocol):
    """The block [begin, end) (cursor offsets) of an object.

    object: index within the split of the first row's object. rows: how many rows. size: how many items.
    item_rows: the row of each item, None where row i is item i. bad: rows that are neither blank nor items. of_files:
    row i is the whole object `object` + i.
    """

    object: int
    begin: int
    end: int
    rows: int
    size: int
    item_rows: Optional[list[int]]
    bad: dict[int, Bad]
    of_files: bool

    def items(self, first: int, stop: int) -> Any:
        """The items [first, stop): a list, a polars frame, or rows in Arrow's columns; `shapes.convert` knows them."""

    def fresh(self, first: int, stop: int) -> Any:
        """The same, made anew where the model may have changed what it was given."""

    def raw(self, row: int) -> bytes:
        """The row as it was read."""

    def cursor(self, row: int) -> tuple[int, int]:
        """(object, offset) of the place where the row begins; of row `rows`: where the block ends."""

    def fields(self, first: int, stop: int) -> list[Any]:
        """Whole records as JSON values, also what the model does not get of them, and whatever it did to the rest."""

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        """A column for each name: the values of the records, None where one has none. names: of `Reader`'s carried."""


class Reader(Protocol):
    """What is left of a lease's objects, block by block and in order; one object is read at a time.

    A block is good until the next one is asked for. check: raises FatalError(input_changed) if what was read so far is
    not the object that was listed.
    """

    def blocks(self) -> Iterator[Records]: ...

    def check(self) -> None: ...

    def close(self) -> None: ...


def columns_of(fields: list[Any], names: list[str]) -> list[list[Any]]:
    """`Records.carried` of whole records."""
    return [[each.get(name) if isinstance(each, dict) else None for each in fields] for name in names]
