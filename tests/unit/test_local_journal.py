"""The file below `tidemill run`'s journal: torn lines, damage, a disk that is full. What it records: conformance/."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tidemill.domain.errors import PartDamaged
from tidemill.domain.splits import PlannedSplit
from tidemill.local.journal import FileJournal
from tidemill.ports.journal import Granted
from tidemill_runtime.contract import Commit, Counts, Cursor, Report

SPLITS = [PlannedSplit(no, no // 2, no, 1, 0, -1, no * 10, no * 10 + 10, 100) for no in range(1200)]


def take(journal: FileJournal, limit: int = 1) -> list[Granted]:
    return journal.exchange(Report(1, "i", "running", want=limit), limit=limit, now=0.0, ttl_s=30.0).granted


def done(journal: FileJournal, granted: Granted) -> None:
    assert granted.state.part is not None
    commit = Commit(
        granted.split.no,
        granted.state.fence,
        granted.state.part,
        Cursor(),
        Cursor(1, 0),
        True,
        5,
        0,
        0,
        "s",
        Counts(1, 1),
    )
    assert journal.exchange(Report(1, "i", "running", [commit]), limit=0, now=0.0, ttl_s=30.0).refused == []


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal.create(path, {"a": [1, "ü"]}, iter(SPLITS), run="r1")
    done(journal, take(journal)[0])
    journal.note(digest="x")
    journal.note(digest="y", other=1)
    journal.close()
    journal.close()
    again = FileJournal.open_(path, run="")
    assert again is not None
    again.begin_run("r2", 2)
    assert (again.header, again.notes) == ({"a": [1, "ü"]}, {"digest": "y", "other": 1, "runs": 2})
    assert [split for unit in range(600) for split in again.splits(unit)] == SPLITS
    assert again.totals().splits_done == 1
    assert [part.run for part in again.all_parts()] == ["r1"]
    again.close()


def test_there_is_none_where_there_is_none(tmp_path: Path) -> None:
    assert FileJournal.open_(tmp_path / "journal", run="r") is None


def test_a_torn_line_counts_as_never_written(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal.create(path, {}, SPLITS, run="r")
    for granted in take(journal, 2):
        done(journal, granted)
    journal.close()
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for cut in (1, 2, len(last) // 2, len(last) - 1):
        path.write_bytes(whole[:-cut])
        torn = FileJournal.open_(path, run="r2")
        assert torn is not None
        assert torn.totals().splits_done == 1
        (granted,) = take(torn)
        assert granted.split.no == 1
        assert granted.state.fence == 2  # the lease that was written before stays known
        done(torn, granted)
        torn.close()
        healed = FileJournal.open_(path, run="r3")
        assert healed is not None
        assert healed.totals().splits_done == 2
        healed.close()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json\n",
        b"{}\n",
        b'{"journal": 99, "header": {}}\n',
        b'{"journal": 1, "header": {}}\n{"leases": [[5, 1]]}\n',
        b'{"journal": 1, "header": {}}\n{"splits": [[1]]}\n',
        b"[]\n",
    ],
)
def test_damage_is_told(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(text)
    with pytest.raises(PartDamaged, match=r"journal.*is damaged"):
        FileJournal.open_(path, run="r")


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from tests.unit.test_local_journal import SPLITS, done, take
    from tidemill.domain.errors import StorageFull
    from tidemill.local.journal import FileJournal
    path = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = FileJournal.create(path, {}, SPLITS, run="r")
    room = path.stat().st_size + 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    count = 0
    try:
        while True:
            done(journal, take(journal)[0])
            count += 1
    except StorageFull as error:
        assert "--resume" in str(error)
    try:
        journal.note(a=1)
    except StorageFull:
        print(count)
"""


def test_a_full_disk_leaves_a_journal_that_can_be_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(path)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert path.read_bytes().endswith(b"\n")
    journal = FileJournal.open_(path, run="r2")
    assert journal is not None
    assert journal.totals().splits_done == int(ended.stdout) > 0
    journal.close()


def test_a_plan_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    def splits() -> object:
        yield SPLITS[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(Exception, match="no space is left"):
        FileJournal.create(tmp_path / "journal", {}, splits(), run="r")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
