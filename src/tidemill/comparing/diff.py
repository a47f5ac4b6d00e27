"""`tidemill diff` and `tidemill.diff`: which two sides are meant, whether they may be compared, and the comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from tidemill.comparing.compare import by_key, by_place
from tidemill.comparing.report import Report
from tidemill.comparing.sides import Side
from tidemill.domain.errors import Conflict, InvalidValue
from tidemill.domain.location import parse_location
from tidemill.objects.region import open_region
from tidemill.ports.objects import Objects
from tidemill.settings import Settings, load_settings

EXAMPLES = 10
_RETRY_S = 10.0


def diff(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    on: Sequence[str] = (),
    tolerance: float = 0.0,
    examples: int = EXAMPLES,
    region: str = "local",
    settings: Settings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Compares predictions record by record; see `Report`.

    before, after: output folders of finished tasks (paths or buckets' addresses), or files of expected values (JSON
    lines, text, CSV, Parquet). on: keys that the results carry, to join by; without them records are joined by their
    place in the input. tolerance: numbers that are no further apart are the same. examples: how many to keep.

    Raises NotFound where there are no results, Conflict where places mean different records because the inputs
    differ, InvalidValue for a missing key.
    """
    settings = settings or load_settings(None, os.environ).settings
    if not (tolerance >= 0):
        raise InvalidValue(f"{tolerance} is not a distance.", field="--tolerance", remedy="Write 0 or more.")
    buckets = settings.regions[region].buckets
    objects = open_region(buckets, settings.data, local_paths=True, environment_buckets=True, retry_s=_RETRY_S)
    one, two = _side(objects, before, "BEFORE"), _side(objects, after, "AFTER")
    report = Report(str(one.place), str(two.place), tolerance, examples)
    if on:
        by_key(one, two, report, list(on), progress)
    else:
        _check_same_inputs(one, two)
        by_place(one, two, report, progress)
    return report


def _side(objects: Objects, place: str | os.PathLike[str], field: str) -> Side:
    return Side(objects, parse_location(os.fspath(place), field=field, base=os.getcwd()), field)  # noqa: PTH109 - a text


def _check_same_inputs(one: Side, two: Side) -> None:
    ours, theirs = one.inputs(), two.inputs()
    if ours is None or theirs is None or ours == theirs:
        return
    known = dict(theirs)
    name = next((name for name, size in ours if known.get(name) != size), None)
    if name is None:
        mine = dict(ours)
        name = next(name for name, _ in theirs if name not in mine)
    how = "only one of them has" if name not in dict(ours) or name not in known else "they have different versions of"
    raise Conflict(
        f"the two tasks read different inputs: {how} {name!r}.",
        field="AFTER",
        remedy="Join by a key that both results carry (--on id), or compare tasks over the same input.",
    )
