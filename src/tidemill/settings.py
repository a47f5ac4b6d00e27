"""Settings: one file, `tidemill.toml`, and TIDEMILL_* variables over it. The only reader of the environment.

The CLI loads them and hands the object on; nothing else looks into the environment or the file. `tidemill config show`
prints what is in force and whence. Unknown keys are refused. docs/reference/settings.md is made from this module.

A variable is the dotted key in capitals with `__` for the dot: `server.port` is TIDEMILL_SERVER__PORT. The client's
address and credential have short names too: `SHORT_VARIABLES`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit, urlunsplit

from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.wire.kinds import Bytes, Millicores, Range, Seconds, Secret
from tidemill.wire.sections import Section, dump, read

FILE_NAME = "tidemill.toml"
PREFIX = "TIDEMILL_"
CONFIG_VARIABLE = "TIDEMILL_CONFIG"
SHORT_VARIABLES = {
    "TIDEMILL_URL": "client.url",
    "TIDEMILL_CREDENTIALS": "client.credentials",
    "TIDEMILL_SECRET_ID": "client.secret_id",
    "TIDEMILL_SECRET_KEY": "client.secret_key",
}
"""What every script that speaks to a server sets."""
ALIASES = {
    "TIDEMILL_URL": "client.url",
    "TIDEMILL_CREDENTIALS": "client.credentials",
    "TIDEMILL_SECRET_ID": "client.secret_id",
    "TIDEMILL_SECRET_KEY": "client.secret_key",
}
"""Short names of variables that users of a server set most."""
_FOREIGN = ("TIDEMILL_TEST_", "TIDEMILL_CRASH_")
"""Variables of that prefix which are not settings."""


@dataclass(frozen=True, kw_only=True)
class ServerSection(Section):
    """Where `tidemill serve` listens."""

    host: str = "127.0.0.1"
    """Address to listen on. Only this machine, unless told otherwise: whoever reaches the port needs a credential all
    the same."""
    port: Annotated[int, Range(0, 65535)] = 7400
    """TCP port. 0 takes a free one (written to server.json in the data folder, where the command line looks for it)."""
    public_url: str | None = None
    """Address that others reach the server at, when it differs from host and port (behind a proxy)."""


@dataclass(frozen=True, kw_only=True)
class ClientSection(Section):
    """Which server the command line and `tidemill.Client` speak to."""

    url: str | None = None
    """Address of the server, like http://127.0.0.1:7400. Not given: the server of the data folder on this machine."""
    credentials: Path | None = None
    """JSON file with secret_id and secret_key. Not given: root-credentials.json in the data folder."""
    secret_id: str | None = None
    """Credential, where a file is not at hand (with secret_key)."""
    secret_key: Secret | None = None
    """The credential's secret half."""


@dataclass(frozen=True, kw_only=True)
class StoreSection(Section):
    """The database of the server."""

    url: str | None = None
    """SQLAlchemy URL, like postgresql+psycopg://user:password@host/database. Not given: SQLite in the data folder."""


@dataclass(frozen=True, kw_only=True)
class BucketSection(Section):
    """One bucket of a region. Tasks name it by its key in the settings: [regions.local.buckets.sales] is
    cos://sales/.
    """

    url: str | None = None
    """Where it really is: s3://bucket or s3://bucket/prefix, or file:///folder. Not given: a folder below the data
    folder."""
    endpoint: str | None = None
    """S3 endpoint, like https://cos.ap-guangzhou.myqcloud.com. Not given: Amazon's for the region."""
    access_key: str | None = None
    """S3 access key (SecretId). It stays in the server: instances get access to single objects only."""
    secret_key: Secret | None = None
    """S3 secret key (SecretKey)."""
    region: str | None = None
    """S3 region name, where the store wants one (ap-guangzhou)."""
    path_style: bool = True
    """Whether the bucket is in the path of a request (MinIO), or in the host name (COS, new buckets of Amazon)."""

    def check(self) -> None:
        if self.url is not None and not self.url.startswith(("s3://", "cos://", "file:///")):
            raise InvalidValue(
                f"{self.url!r} is no bucket.", field="url", remedy="Write s3://bucket or file:///folder."
            )


@dataclass(frozen=True, kw_only=True)
class RegionSection(Section):
    """An isolated set of storage, engine and tasks."""

    engine: Literal["process"] = "process"
    """What places instances: `process` starts them on the server's machine."""
    buckets: dict[str, BucketSection] = field(default_factory=lambda: {"data": BucketSection()})
    """Buckets by name. The default region has one, `data`, so that cos://data/… works at once."""
    runner_url: str | None = None
    """Address at which instances reach the server, when it is not the one it listens on."""


@dataclass(frozen=True, kw_only=True)
class ProcessSection(Section):
    """What instances on this machine may use all together. Tasks queue for it."""

    cpu: Millicores | None = None
    """Cores (`2`, `500m`). Not given: all that this process may use."""
    memory: Bytes | None = None
    """Memory (`4Gi`). Not given: what the machine (or the container it is in) has, less a tenth."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentsSection(Section):
    """Environments that requirements of models are installed into, kept in the data folder. Where packages come from
    is uv's own configuration: UV_DEFAULT_INDEX and its like, or uv.toml.
    """

    size: Bytes = 20 * 2**30
    """All environments together (bytes). Over it, those go that were not used for longest; never one in use."""
    install_within_s: Seconds = 1800.0
    """Seconds that installing the requirements of one package may take."""
    source_builds: bool = True
    """Whether packages may be built from source, which runs code of theirs. `false`: only wheels."""


@dataclass(frozen=True, kw_only=True)
class LimitsSection(Section):
    """Times and sizes. Change them when you know why: each says what it guards."""

    lease_ttl_s: Seconds = 30.0
    """Seconds after which the split of an instance that fell silent is given to another. Several missed reports."""
    report_every_s: Seconds = 2.0
    """Seconds between reports of an instance: how fresh progress is, and what the server has to answer."""
    commit_every_s: Seconds = 5.0
    """Seconds of work that an instance keeps uncommitted at most: what a kill can cost."""
    scratch_ttl_s: Seconds = 7 * 86400.0
    """Seconds that staged parts of a stopped or failed task are kept, so that it can be resumed."""
    log_ttl_s: Seconds = 7 * 86400.0
    """Seconds that logs of instances are kept."""
    grant_ttl_s: Seconds = 6 * 3600.0
    """Seconds that an instance's access to one object is good for: longer than any split takes."""
    orphan_after_s: Seconds = 3600.0
    """Seconds that instances go on without a server before they give up: a restart must not cost work."""
    stop_grace_s: Seconds = 10.0
    """Seconds between asking an instance to end and killing it."""
    body_bytes: Bytes = 10_000_000
    """Largest body of a request of the JSON API (bytes): a server must not be filled from outside."""
    package_bytes: Bytes = 16 * 2**30
    """Largest model package, unpacked (bytes)."""
    package_files: Annotated[int, Range(1, 10_000_000)] = 100_000
    """Most files in a model package."""
    upload_bytes: Bytes = 16 * 2**30
    """Largest object that is uploaded through the server (bytes)."""

    def check(self) -> None:
        if self.report_every_s <= 0 or self.lease_ttl_s < 2 * self.report_every_s:
            raise InvalidValue(
                f"{self.lease_ttl_s:g} s is less than two reports.",
                field="lease_ttl_s",
                remedy=f"Write at least {2 * self.report_every_s:g}.",
            )


@dataclass(frozen=True, kw_only=True)
class Settings(Section):
    """All settings of Tidemill."""

    noun: ClassVar[str] = "file"

    data: Path
    """Folder of the embedded database, bucket, models, logs and credentials. Default: $XDG_DATA_HOME/tidemill, else
    ~/.local/share/tidemill."""
    server: ServerSection = ServerSection()
    client: ClientSection = ClientSection()
    store: StoreSection = StoreSection()
    regions: dict[str, RegionSection] = field(default_factory=lambda: {"local": RegionSection()})
    """Regions by name. A task that names none is in `local`."""
    process: ProcessSection = ProcessSection()
    environments: EnvironmentsSection = EnvironmentsSection()
    limits: LimitsSection = LimitsSection()


@dataclass(frozen=True)
class Loaded:
    """Settings and where each comes from: dotted key → "default", "FILE", "TIDEMILL_X" or "--flag".

    file: the file that was read, if there was one.
    """

    settings: Settings
    origins: Mapping[str, str]
    file: Path | None


def load_settings(
    config: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None
) -> Loaded:
    """What is in force: defaults, then the file, then variables, then `overrides` (dotted key → value, from flags).

    config: a file that has to exist; None looks for ./tidemill.toml, then ~/.config/tidemill/tidemill.toml.
    Raises InvalidValue and UnknownKey naming the key and the place it was set, NotFound for a missing `config`.
    """
    values: dict[str, tuple[object, str]] = {}  # dotted key → value, origin
    file = _find_file(config, environ)
    if file is not None:
        for key, value in _flat(_parse_file(file)):
            values[key] = (_from_folder(key, value, file.parent), str(file))
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(_FOREIGN) and name != CONFIG_VARIABLE:
            key = SHORT_VARIABLES.get(name) or name.removeprefix(PREFIX).lower().replace("__", ".")
            values[key] = (environ[name], name)
    for key, value in (overrides or {}).items():
        if value is not None:
            values[key] = (value, f"--{key.rpartition('.')[2].replace('_', '-')}")
    values.setdefault("data", (_default_data(environ), "default"))
    settings = _read(values, environ)
    return Loaded(settings, {key: values.get(key, ("", "default"))[1] for key, _ in flat(settings)}, file)


def flat(settings: Section) -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted key, as JSON values. Secrets and passwords in addresses are masked."""
    return ((key, _masked(value)) for key, value in _flat(dump(settings)))


def _flat(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _masked(value: Any) -> Any:
    if not isinstance(value, str) or "://" not in value or "@" not in value:
        return value
    parts = urlsplit(value)
    if not parts.password:
        return value
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:********@{host}"))


def _read(values: Mapping[str, tuple[object, str]], environ: Mapping[str, str]) -> Settings:
    tree: dict[str, Any] = {}
    for key, (value, _) in values.items():
        *above, last = key.split(".")
        inner: Any = tree
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidValue(f"{part!r} is set both to a value and to a section.", field=key)
        inner[last] = value
    # Declaring a second region or bucket must not remove the first.
    local = tree.setdefault("regions", {}).setdefault("local", {})
    if isinstance(local, dict) and isinstance(local.setdefault("buckets", {}), dict):
        local["buckets"].setdefault("data", {})
    try:
        settings = read(Settings, tree)
    except InvalidValue as error:
        raise _with_origin(error, values) from None
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    client = settings.client
    if client.credentials is not None:
        client = client.replace(credentials=_absolute(client.credentials, home))
    return dataclasses.replace(settings, data=_absolute(settings.data, home), client=client)


def _with_origin(error: InvalidValue, values: Mapping[str, tuple[object, str]]) -> InvalidValue:
    """The same error, saying which file or variable holds the value."""
    for key, (_, origin) in values.items():
        if error.field and (key == error.field or key.startswith(f"{error.field}.")) and origin != "default":
            return type(error)(f"{error.message} (Set by {origin}.)", field=error.field, remedy=error.remedy)
    return error


def _find_file(config: Path | None, environ: Mapping[str, str]) -> Path | None:
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        if not named.is_file():
            raise NotFound(f"no file {str(named)!r}.", field="--config" if config else CONFIG_VARIABLE)
        return named.absolute()
    base = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    places = [Path(FILE_NAME), *([Path(base) / "tidemill" / FILE_NAME] if base else [])]
    return next((place.absolute() for place in places if place.is_file()), None)


def _parse_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{error}.", field=str(file), remedy="Write it as TOML.") from error
    except OSError as error:
        raise InvalidValue(f"cannot be read: {error.strerror}.", field=str(file)) from error


def _from_folder(key: str, value: object, folder: Path) -> object:
    """Relative paths of the file start from its own folder."""
    if key in ("data", "client.credentials") and isinstance(value, str) and not value.startswith("~"):
        return str(folder / value)
    return value


def _default_data(environ: Mapping[str, str]) -> str:
    if environ.get("XDG_DATA_HOME"):
        return f"{environ['XDG_DATA_HOME']}/tidemill"
    if not environ.get("HOME"):
        raise InvalidValue("no home folder is known.", field="data", remedy="Give --data or set TIDEMILL_DATA.")
    return f"{environ['HOME']}/.local/share/tidemill"


def _absolute(path: Path, home: Path | None) -> Path:
    if path.parts[:1] == ("~",) and home is not None:
        path = home.joinpath(*path.parts[1:])
    return path.absolute()
