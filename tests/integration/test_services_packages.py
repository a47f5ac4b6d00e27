"""Packages and versions through time: what is swept, and what is finished after a server's death."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api_world import MODEL, World, open_world
from tidemill.domain.errors import NotFound
from tidemill.domain.ids import RunId
from tidemill.domain.life import Reason, TaskStatus
from tidemill.services.life import change_status
from tidemill.services.packages import UNUSED_S
from tidemill.services.runs import finish, locked_run
from tidemill.store.models_tables import VersionStatus, model_versions
from tidemill.store.packages_tables import packages
from tidemill.store.runs import set_run


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with open_world(tmp_path / "data", database_url) as made:
        made.put_input()
        yield made


def age(world: World) -> None:
    """Everything was last used long ago."""
    for top, folders, files in os.walk(world.data):
        for name in folders + files:
            if "buckets" not in top and name != "buckets":
                os.utime(Path(top) / name, (1, 1))
    with world.store.write() as tx:
        tx.execute(packages.update().values(used=packages.c.used - UNUSED_S - 1))


def test_a_sweep_leaves_what_is_used(world: World) -> None:
    with world.client() as client:
        kept = client.models.import_("doubler", world.put_model()).package
        code = world.put_model("code", MODEL + "# code\n") / "batch"
        task = client.tasks.create(world.task(code=str(code)))
        assert task.code_digest is not None
        unused = client.packages.upload_folder(world.put_model("unused", MODEL + "# unused\n")).digest
        assert world.services.packages.sweep() == []
        age(world)
        removed = world.services.packages.sweep()
        assert any(unused in what for what in removed)
        assert not any(digest in what for what in removed for digest in (kept, task.code_digest))
        with pytest.raises(NotFound):
            client.packages.get(unused)
        assert client.packages.get(kept).digest == kept
        assert world.services.packages.materialise(task.code_digest).is_dir()

        with world.store.write() as tx:  # stopped: it may be resumed, so its code is kept
            run = change_status(tx, locked_run(tx, RunId(f"{task.id}-r1")), TaskStatus.STOPPING, now=time.time())
            finish(tx, run, TaskStatus.STOPPED, Reason.STOPPED_BY_USER, "", time.time(), totals=None, sweep_at=1e12)
        age(world)
        assert world.services.packages.sweep() == []
        with world.store.write() as tx:  # its staging is gone: nothing will go on with it
            set_run(tx, RunId(f"{task.id}-r1"), {"sweep_at": None})
        age(world)
        assert any(task.code_digest in what for what in world.services.packages.sweep())
        client.models.delete("doubler")
        age(world)
        assert any(kept in what for what in world.services.packages.sweep())
        assert not list((world.data / "packages").iterdir())
        assert client.models.import_("doubler", world.put_model()).status == "READY"


def test_an_import_that_was_cut_off_is_finished(world: World) -> None:
    with world.client() as client:
        good = client.models.import_("good", world.put_model())
        bad = client.models.import_("bad", world.put_model("bad", "x = 1\n"))
        with world.store.write() as tx:
            tx.execute(model_versions.update().values(status=VersionStatus.CREATING, reason="", entry=None))
        assert client.models.version("good", 1).status == "CREATING"
        assert world.services.models.finish_creating() == 2
        assert client.models.version("good", 1) == good
        assert client.models.version("bad", 1) == bad
        assert world.services.models.finish_creating() == 0
