"""Models, packages, blobs and objects over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.api_world import STRANGER, USER, World, open_world
from tidemill.domain.errors import Conflict, InvalidValue, NotFound, TooLarge
from tidemill.settings import LimitsSection


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with open_world(tmp_path / "data", database_url, limits=LimitsSection(package_bytes=1_000_000)) as made:
        yield made


def test_import_and_look(world: World) -> None:
    folder = world.put_model()
    (folder / "model").mkdir()
    (folder / "model" / "权重.bin").write_bytes(b"\0" * 5000)
    with world.client() as client:
        seen = []
        first = client.models.import_("流失", folder, description="one", labels={"a": "b"}, progress=seen.append)
        assert (first.status, first.reference, first.entry) == ("READY", "流失@1", "batch/model_service.py:Doubler")
        assert seen[-1].bytes_done == seen[-1].bytes > 5000
        assert seen[-1].skipped_bytes == 0
        again: list[object] = []
        second = client.models.import_("流失", folder, progress=again.append)
        assert second.reference == "流失@2"
        assert second.package == first.package
        assert again[-1].bytes == 0  # type: ignore[attr-defined]
        assert client.models.get("流失").latest == 2
        assert [version.number for version in client.models.versions("流失")] == [2, 1]
        assert [file.path for file in client.models.files("流失", 1).files] == [
            "batch/model_service.py",
            "model/权重.bin",
        ]
        assert [model.name for model in client.models.all()] == ["流失"]
        assert client.models.change("流失", description="who leaves").description == "who leaves"
        assert client.models.version("流失").number == 2
        client.models.delete_version("流失", 2)
        assert client.models.import_("流失", folder).number == 3, "a number is not given twice"
        assert client.models.delete("流失").removed == ["model 流失", "version 流失@1", "version 流失@3"]
        with pytest.raises(NotFound):
            client.models.get("流失")


@pytest.mark.parametrize(
    ("text", "said"),
    [("class Doubler:\n  def load(self) return 1", "line 2"), ("x = 1", "no class"), ("(" * 5000, "model_service.py")],
)
def test_bad_models_fail_with_the_reason(world: World, text: str, said: str) -> None:
    with world.client() as client:
        version = client.models.import_("bad", world.put_model(text=text))
        assert version.status == "FAILED"
        assert said in version.reason
        assert str(world.data) not in version.reason
        assert client.models.get("bad").latest is None


def test_a_folder_without_an_entry(world: World, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "weights").write_text("1")
    with world.client() as client:
        assert "model_service.py" in client.models.import_("m", tmp_path / "some").reason
        with pytest.raises(InvalidValue, match="no files"):
            client.models.import_("m", tmp_path / "empty")
        with pytest.raises(NotFound):
            client.models.import_("m", tmp_path / "missing")


def test_archives(world: World, tmp_path: Path) -> None:
    path = tmp_path / "m.tgz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(world.put_model(), "churn-1.0")
    hostile = io.BytesIO()
    with tarfile.open(fileobj=hostile, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    (tmp_path / "evil.tgz").write_bytes(gzip.compress(hostile.getvalue()))
    bomb = io.BytesIO()
    with tarfile.open(fileobj=bomb, mode="w") as archive:
        info = tarfile.TarInfo("zeros")
        info.size = 3_000_000
        archive.addfile(info, io.BytesIO(b"\0" * info.size))
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(bomb.getvalue()))
    with world.client() as client:
        assert client.models.import_("m", path).entry == "batch/model_service.py:Doubler"
        with pytest.raises(InvalidValue, match="evil"):
            client.models.import_("m", tmp_path / "evil.tgz")
        with pytest.raises(TooLarge, match="unpacks to more"):
            client.models.import_("m", tmp_path / "bomb.tgz")


def test_uploads_are_checked(world: World) -> None:
    with world.http() as http:
        sha = hashlib.sha256(b"abc").hexdigest()
        answer = http.put(f"/api/v1/blobs/{sha}", content=b"abd")
        assert answer.status_code == 422
        assert "digest" in answer.json()["detail"]
        assert http.head(f"/api/v1/blobs/{sha}").status_code == 404
        assert http.put(f"/api/v1/blobs/{sha}", content=b"abc").status_code == 201
        assert http.head(f"/api/v1/blobs/{sha}").headers["x-blob-size"] == "3"
        assert http.put(f"/api/v1/blobs/{sha}", content=b"x" * 1_000_001).status_code == 413
        streamed = http.put(f"/api/v1/blobs/{sha}", content=iter([b"x" * 600_000, b"x" * 600_000]))
        assert streamed.status_code == 413
        for path in ("../x", "/etc/passwd", "a/../b", ""):
            body = {"files": [{"path": path, "sha256": sha, "size": 3}]}
            assert http.post("/api/v1/packages", json=body).status_code == 422
        body = {"files": [{"path": "a", "sha256": "0" * 64, "size": 3}]}
        missing = http.post("/api/v1/packages", json=body)
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert not list((world.data / "blobs" / "incoming").iterdir())


def test_delete_is_refused_by_the_name_of_the_task(world: World) -> None:
    world.put_input()
    with world.client() as client:
        client.models.import_("doubler", world.put_model())
        task = client.tasks.create(world.task(name="busy", model="doubler@1"))
        with pytest.raises(Conflict, match=rf"doubler@1 is used by the task 'busy' \({task.id}\)"):
            client.models.delete("doubler")
        with pytest.raises(Conflict, match="busy"):
            client.models.delete_version("doubler", 1)


def test_other_accounts_see_nothing(world: World) -> None:
    with world.client() as client, world.client(STRANGER) as stranger, world.client(USER) as user:
        version = client.models.import_("doubler", world.put_model())
        assert user.models.get("doubler").created_by == "root"
        assert not list(stranger.models.all())
        for look in (
            lambda: stranger.models.get("doubler"),
            lambda: stranger.models.version("doubler", 1),
            lambda: stranger.models.delete("doubler"),
            lambda: stranger.packages.get(version.package),
        ):
            with pytest.raises(NotFound):
                look()


def test_objects(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "up"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b" / "中文#1%20+.jsonl").write_text("1\n")
    (folder / "empty").write_text("")
    with world.client(USER) as client:
        client.objects.put_folder("cos://data/x", folder)
        names = [view.name for view in client.objects.all("cos://data/x/")]
        assert names == ["a b/中文#1%20+.jsonl", "empty"]
        client.objects.put("cos://data/x/big", b"0123456789" * 300_000)
        assert client.objects.read("cos://data/x/big", start=2_999_995) == b"56789"
        assert client.objects.read("cos://data/x/big", start=5, stop=8) == b"567"
        got = client.objects.get("cos://data/x/big", tmp_path / "down" / "big")
        assert got.stat().st_size == 3_000_000
        assert [path.name for path in client.objects.get_folder("s3://data/x/", tmp_path / "all")] == [
            "中文#1%20+.jsonl", "big", "empty",
        ]  # fmt: skip
        page = client.objects.list("cos://data/x/", limit=2)
        rest = client.objects.list("cos://data/x/", limit=2, cursor=page.next_cursor)
        assert [view.name for view in (*page.items, *rest.items)] == ["a b/中文#1%20+.jsonl", "big", "empty"]
        assert rest.next_cursor is None
        assert client.objects.delete("cos://data/x/big").removed == ["cos://data/x/big"]
        assert client.objects.delete("cos://data/x/big").removed == []
        with pytest.raises(InvalidValue, match="recursive"):
            client.objects.delete("cos://data/x/")
        client.objects.delete("cos://data/x/", recursive=True)
        assert not list(client.objects.all("cos://data/x/"))
        with pytest.raises(NotFound):
            client.objects.read("cos://data/x/big")
        with pytest.raises(InvalidValue, match="nowhere"):
            client.objects.put("cos://nowhere/x", b"1")


def test_only_the_operator_names_paths(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with world.client() as root, world.client(USER) as user:
        assert root.objects.read(f"{tmp_path}/secret") == b"s"
        for path in (f"{tmp_path}/secret", f"file://{tmp_path}/secret"):
            with pytest.raises(Exception, match="server's own disk"):
                user.objects.read(path)
        with pytest.raises(Exception, match="server's own disk"):
            user.objects.put(f"{tmp_path}/x", b"1")


def test_ranges(world: World) -> None:
    world.put_input("r", "0123456789")
    with world.http() as http:

        def get(value: str) -> tuple[int, str, str | None]:
            answer = http.get("/api/v1/objects/content", params={"path": "cos://data/r"}, headers={"Range": value})
            return answer.status_code, answer.text, answer.headers.get("content-range")

        assert get("bytes=2-4") == (206, "234", "bytes 2-4/10")
        assert get("bytes=8-") == (206, "89", "bytes 8-9/10")
        assert get("bytes=-3") == (206, "789", "bytes 7-9/10")
        assert get("bytes=0-99") == (206, "0123456789", "bytes 0-9/10")
        assert get("bytes=10-") == (416, "", "bytes */10")
        assert get("bytes=1-2,4-5")[0] == 200
        assert get("lines=1-2")[0] == 200
