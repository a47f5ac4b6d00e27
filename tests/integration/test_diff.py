"""`tidemill.diff`: predictions compared record by record, between folders of results and files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integration.local_world import World
from tidemill.comparing.diff import diff
from tidemill.comparing.report import Report
from tidemill.comparing.sketch import Distribution
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.settings import Settings

Compare = Callable[..., Report]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    def call(before: str, after: str, **options: Any) -> Report:
        return diff(tmp_path / before, tmp_path / after, settings=Settings(data=tmp_path / "data"), **options)

    return call


def write(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_what_changed_by_how_much_and_where(tmp_path: Path, compare: Compare) -> None:
    write(tmp_path / "a.jsonl", [1.0, 2.0, None, 4.0, 5.0])
    write(tmp_path / "b.jsonl", [1.0, 2.5, 3.0, 4.0, None, 6.0])
    found = compare("a.jsonl", "b.jsonl")
    assert (found.compared, found.same, found.changed, found.only_after, found.only_before) == (5, 2, 3, 1, 0)
    assert (found.failed_before, found.failed_after, found.failed_both) == (1, 1, 0)
    numbers = found.fields[""].numbers
    assert (numbers.count, numbers.mean, numbers.largest) == (1, 0.5, 0.5)
    assert [each.place for each in found.examples] == ["a.jsonl line 2", "a.jsonl line 3", "a.jsonl line 5"]
    assert not found.equal
    assert compare("a.jsonl", "a.jsonl").equal
    assert compare("a.jsonl", "a.jsonl").failed_both == 1


def test_labels_vectors_and_objects(tmp_path: Path, compare: Compare) -> None:
    write(tmp_path / "a.jsonl", [{"label": "cat", "p": [0.5, 0.5]}, {"label": "dog", "p": [1, 0]}, {"label": "dog"}])
    write(tmp_path / "b.jsonl", [{"label": "dog", "p": [0.5, 0.4]}, {"label": "cat", "p": [1, 0]}, {"label": 3}])
    found = compare("a.jsonl", "b.jsonl").to_json()["fields"]
    assert found["label"]["labels"] == [
        {"before": "cat", "after": "dog", "count": 1},
        {"before": "dog", "after": "cat", "count": 1},
    ]
    assert found["label"]["other_kinds"] == 1
    assert found["p[]"]["numbers"]["max"] == pytest.approx(0.1)


def test_many_numbers_are_compared_as_few_are(tmp_path: Path, compare: Compare) -> None:
    """In columns where there are many, one by one where there are few: the same comes out."""
    chance = random.Random(3)
    before = [chance.uniform(-5, 5) for _ in range(5000)]
    after = [value + chance.choice([0, 0, 1e-9, chance.expovariate(1)]) for value in before]
    after[7], before[8] = 1e308, -1e308
    write(tmp_path / "a.jsonl", [{"prediction": value, "id": at} for at, value in enumerate(before)])
    write(tmp_path / "b.jsonl", [{"prediction": value, "id": at} for at, value in enumerate(after)])
    many = compare("a.jsonl", "b.jsonl", tolerance=1e-6)
    few = Report("", "", 1e-6, 10)
    for at, (old, new) in enumerate(zip(before, after, strict=True)):
        few.record(_Somewhere(), at, None, old, new)
    assert (many.compared, many.same) == (few.compared, few.same)
    ours, theirs = many.fields[""].numbers, few.fields[""].numbers
    assert (ours.count, ours.largest, ours._buckets) == (theirs.count, theirs.largest, theirs._buckets)
    assert ours.total == pytest.approx(theirs.total)
    assert [each.place for each in many.largest] == [each.place for each in few.largest]
    assert [each.place for each in many.examples] == [each.place for each in few.examples]


class _Somewhere:
    def place(self, index: int) -> str:
        return f"a.jsonl line {index + 1:,}"


@pytest.mark.parametrize("size", [40, 40_000])
def test_joined_by_key_in_any_order(tmp_path: Path, compare: Compare, size: int) -> None:
    records = [{"id": f"客{at}", "prediction": at / 7} for at in range(size)]
    write(tmp_path / "a.jsonl", records)
    changed = [{**record, "prediction": -1.0} if at % 10 == 3 else record for at, record in enumerate(records)]
    random.Random(1).shuffle(changed)
    write(tmp_path / "b.jsonl", [*changed[: size - 2], {"id": "new", "prediction": 1}, changed[0]])
    found = compare("a.jsonl", "b.jsonl", on=["id"])
    lost = changed[size - 2 :]
    assert (found.only_before, found.only_after, found.repeated) == (2, 1, 1)
    assert found.compared == size - 2
    assert found.changed == size // 10 - sum(record["prediction"] == -1.0 for record in lost)
    assert all(example.after == -1.0 and example.key.startswith("客") for example in found.examples)


def test_a_key_that_is_not_carried(tmp_path: Path, compare: Compare) -> None:
    write(tmp_path / "a.jsonl", [{"prediction": 1}])
    with pytest.raises(InvalidValue, match=r"a\.jsonl line 1 has no key 'id'") as error:
        compare("a.jsonl", "a.jsonl", on=["id"])
    assert error.value.remedy is not None
    assert "format.result.keys" in error.value.remedy


def test_a_task_against_expected_values(tmp_path: Path) -> None:
    world = World(tmp_path).model().file("in/a.jsonl", "".join(f'{{"id": {n}, "x": {n}}}\n' for n in range(50)))
    assert world.run(format={"result": {"keys": ["id"]}}).ok == 50
    (tmp_path / "expected.csv").write_text("id,prediction\n" + "".join(f"{n},{2 * n}\n" for n in range(50)))
    assert diff(tmp_path / "expected.csv", tmp_path / "out", on=["id"], settings=world.settings).equal
    assert diff(tmp_path / "expected.csv", tmp_path / "out", settings=world.settings).equal


def test_two_tasks_over_different_inputs(tmp_path: Path) -> None:
    world = World(tmp_path).model().numbers("in/a.jsonl", [1, 2]).numbers("in2/a.jsonl", [1, 2, 3])
    world.run()
    world.run(input=str(tmp_path / "in2") + "/", output=str(tmp_path / "out2"))
    with pytest.raises(Conflict, match=r"different versions of 'a\.jsonl'") as error:
        diff(tmp_path / "out", tmp_path / "out2", settings=world.settings)
    assert error.value.remedy is not None
    assert "--on" in error.value.remedy
    world.run(output=str(tmp_path / "out3"))
    assert diff(tmp_path / "out", tmp_path / "out3", settings=world.settings).equal


def test_parquet(tmp_path: Path, compare: Compare) -> None:
    import pyarrow
    import pyarrow.parquet

    for name, shift in (("a", 0.0), ("b", 0.25)):
        table = pyarrow.table({"id": [1, 2], "prediction": [1.5, 2.5 + shift]})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
    found = compare("a.parquet", "b.parquet")
    assert (found.same, found.changed, found.fields[""].numbers.largest) == (1, 1, 0.25)


def test_what_cannot_be_compared(tmp_path: Path, compare: Compare) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.jsonl", [1])
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "broken.jsonl").write_text("{\n")
    with pytest.raises(NotFound, match="no finished results"):
        compare("empty", "a.jsonl")
    with pytest.raises(NotFound):
        compare("nowhere.jsonl", "a.jsonl")
    with pytest.raises(NotFound, match=r"there is no folder or file .*/gone"):
        compare("a.jsonl", "gone")
    with pytest.raises(InvalidValue, match=r"a\.zip"):
        compare("a.jsonl", "a.zip")
    with pytest.raises(InvalidValue, match="not JSON lines"):
        compare("a.jsonl", "broken.jsonl")
    with pytest.raises(InvalidValue, match="distance"):
        compare("a.jsonl", "a.jsonl", tolerance=-1.0)


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 1.0]))
def test_a_quantile_is_within_one_percent(differences: list[float], share: float) -> None:
    found = Distribution()
    for each in differences:
        found.add(each)
    exact = sorted(differences)[int(share * (len(differences) - 1))]
    assert found.quantile(share) == pytest.approx(exact, rel=0.011)
