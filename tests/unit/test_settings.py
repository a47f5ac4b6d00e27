from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from tidemill.domain.errors import InvalidValue, NotFound, UnknownKey
from tidemill.settings import Settings, flat, load_settings
from tidemill.wire.schema import documented_fields
from tidemill.wire.sections import field_types

HOME = {"HOME": "/home/ada"}
DAY = 86400.0


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_these() -> None:
    loaded = load_settings(None, HOME)
    assert dict(flat(loaded.settings)) == {
        "data": "/home/ada/.local/share/tidemill",
        "server.host": "127.0.0.1",
        "server.port": 7400,
        "server.public_url": None,
        "client.url": None,
        "client.credentials": None,
        "client.secret_id": None,
        "client.secret_key": None,
        "store.url": None,
        "regions.local.engine": "process",
        "regions.local.buckets.data.url": None,
        "regions.local.buckets.data.endpoint": None,
        "regions.local.buckets.data.access_key": None,
        "regions.local.buckets.data.secret_key": None,
        "regions.local.buckets.data.region": None,
        "regions.local.buckets.data.path_style": True,
        "regions.local.runner_url": None,
        "process.cpu": None,
        "process.memory": None,
        "environments.size": 20 * 2**30,
        "environments.install_within_s": 1800.0,
        "environments.source_builds": True,
        "limits.lease_ttl_s": 30.0,
        "limits.report_every_s": 2.0,
        "limits.commit_every_s": 5.0,
        "limits.scratch_ttl_s": 7 * DAY,
        "limits.log_ttl_s": 7 * DAY,
        "limits.grant_ttl_s": DAY / 4,
        "limits.orphan_after_s": 3600.0,
        "limits.stop_grace_s": 10.0,
        "limits.body_bytes": 10_000_000,
        "limits.package_bytes": 16 * 2**30,
        "limits.package_files": 100_000,
        "limits.upload_bytes": 16 * 2**30,
    }
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.file is None


def test_every_setting_is_documented() -> None:
    for field in documented_fields(Settings):
        assert len(field.doc) > 15, field.key


def test_every_duration_and_size_carries_its_unit() -> None:
    for name in field_types(type(load_settings(None, HOME).settings.limits)):
        assert re.search(r"_(s|bytes|files)$", name), name


def test_data_lies_where_xdg_says() -> None:
    assert load_settings(None, {**HOME, "XDG_DATA_HOME": "/data"}).settings.data == Path("/data/tidemill")
    with pytest.raises(InvalidValue, match="TIDEMILL_DATA"):
        load_settings(None, {})


def test_flag_over_variable_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "tidemill.toml"
    file.write_text('data = "d"\n[server]\nport = 1\nhost = "a"\npublic_url = "http://x"\n')
    environ = {**HOME, "TIDEMILL_SERVER__PORT": "2", "TIDEMILL_SERVER__HOST": "b"}
    loaded = load_settings(None, environ, {"server.port": 3, "server.public_url": None})
    assert (loaded.settings.server.port, loaded.settings.server.host) == (3, "b")
    assert loaded.settings.server.public_url == "http://x"
    assert loaded.settings.data == tmp_path / "d"
    assert {key: loaded.origins[key] for key in ("server.port", "server.host", "server.public_url", "store.url")} == {
        "server.port": "--port",
        "server.host": "TIDEMILL_SERVER__HOST",
        "server.public_url": str(file),
        "store.url": "default",
    }


def test_the_file_is_found_here_then_at_home_and_a_named_one_wins(tmp_path: Path) -> None:
    home = tmp_path / "home"
    at_home = home / ".config" / "tidemill" / "tidemill.toml"
    at_home.parent.mkdir(parents=True)
    at_home.write_text("[server]\nport = 1\n")
    environ = {"HOME": str(home)}
    assert load_settings(None, environ).settings.server.port == 1
    (tmp_path / "tidemill.toml").write_text("[server]\nport = 2\n")
    assert load_settings(None, environ).settings.server.port == 2
    (tmp_path / "third.toml").write_text("[server]\nport = 3\n")
    assert load_settings(tmp_path / "third.toml", environ).settings.server.port == 3
    assert load_settings(None, {**environ, "TIDEMILL_CONFIG": "third.toml"}).settings.server.port == 3
    with pytest.raises(NotFound, match="fourth"):
        load_settings(tmp_path / "fourth.toml", environ)


def test_short_forms_and_short_names() -> None:
    environ = {**HOME, "TIDEMILL_PROCESS__MEMORY": "4Gi", "TIDEMILL_PROCESS__CPU": "1.5", "TIDEMILL_URL": "http://h"}
    settings = load_settings(None, environ).settings
    assert (settings.process.memory, settings.process.cpu) == (4 * 2**30, 1500)
    assert settings.client.url == "http://h"


def test_declaring_a_bucket_or_region_keeps_the_default_ones() -> None:
    environ = {
        **HOME,
        "TIDEMILL_REGIONS__LOCAL__BUCKETS__SALES__URL": "s3://x",
        "TIDEMILL_REGIONS__EU__ENGINE": "process",
    }
    regions = load_settings(None, environ).settings.regions
    assert set(regions) == {"local", "eu"}
    assert set(regions["local"].buckets) == {"data", "sales"}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[server]\nprt = 1", ["server.prt", "'port'", "tidemill.toml"]),
        ("sever = 1", ["sever", "'server'", "tidemill.toml"]),
        ("[server]\nport = 70000", ["server.port", "70000", "65,535"]),
        ("[server]\nport = 'http'", ["server.port", "'http'", "whole number"]),
        ("[limits]\nlease_ttl_s = 1", ["limits.lease_ttl_s", "at least 4"]),
        ("[regions.local]\nengine = 'proces'", ["regions.local.engine", "'process'"]),
        ("[regions.local.buckets.x]\nurl = 'ftp://x'", ["regions.local.buckets.x.url", "s3://"]),
        ("server = 3", ["server", "host, port"]),
        ("[server]\nport = = 1", ["tidemill.toml", "line 2"]),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, toml: str, words: list[str]) -> None:
    (tmp_path / "tidemill.toml").write_text(toml)
    with pytest.raises(InvalidValue) as caught:
        load_settings(None, HOME)
    for word in words:
        assert word in str(caught.value)


def test_unknown_variables_are_refused_by_their_name() -> None:
    with pytest.raises(UnknownKey, match=r"TIDEMILL_SERVER__PRT.*'port'"):
        load_settings(None, {**HOME, "TIDEMILL_SERVER__PRT": "1"})
    load_settings(None, {**HOME, "TIDEMILL_TEST_POSTGRES": "1"})


def test_secrets_are_never_shown() -> None:
    environ = {
        **HOME,
        "TIDEMILL_SECRET_KEY": "hidden-1",
        "TIDEMILL_REGIONS__LOCAL__BUCKETS__DATA__SECRET_KEY": "hidden-2",
        "TIDEMILL_STORE__URL": "postgresql+psycopg://ada:hidden-3@db/tidemill",
    }
    settings = load_settings(None, environ).settings
    shown = repr(dict(flat(settings)))
    assert "hidden" not in shown
    assert "postgresql+psycopg://ada:********@db/tidemill" in shown
    assert "hidden-1" not in repr(settings)
    assert settings.client.secret_key is not None
    assert settings.client.secret_key.get_secret_value() == "hidden-1"


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings(None, HOME).settings.server.port = 1  # type: ignore[misc]
