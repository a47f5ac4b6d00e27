"""A region as the services see it: where its objects are, and what places its instances. Made by `bootstrap`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.domain.errors import InvalidValue
from tidemill.ports.engine import Engine
from tidemill.ports.objects import Objects


@dataclass(frozen=True)
class Region:
    """buckets: names that the settings declare."""

    name: str
    objects: Objects
    engine: Engine
    buckets: tuple[str, ...]


Regions = Mapping[str, Region]


def find_region(regions: Regions, name: str) -> Region:
    """Raises InvalidValue naming the regions that there are."""
    if name not in regions:
        raise InvalidValue(
            f"there is no region {name[:64]!r}.", field="region", remedy=f"Regions: {', '.join(sorted(regions))}."
        )
    return regions[name]
