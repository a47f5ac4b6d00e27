"""What was planned for a run: the listing that its splits refer to, and the totals. Written once by `planning`.

Coordination, publishing and the receipt read it; a resumed run goes on with the plan of the run before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.domain.location import Location
from tidemill.domain.splits import Cut, Layout


@dataclass(frozen=True)
class Plan:
    """listing: JSON lines of {"name", "size", "etag"}, one for each input object; splits hold byte ranges of it.

    objects, bytes: of the input. units: groups of splits that are published together, numbered from 0.
    listing_sha256: of the listing object, in hex. input_type: `InputFormat.type`.
    note: what a person should know of it, for example that large objects are not cut, and why.
    """

    listing: Location
    objects: int
    bytes: int
    splits: int
    units: int
    cut: Cut
    layout: Layout
    listing_sha256: str
    input_type: str
    note: str = ""
