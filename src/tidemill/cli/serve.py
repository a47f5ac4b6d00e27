"""`tidemill serve`: the server in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from tidemill.cli.commands import Call, command, option
from tidemill.cli.output import EXIT_FAILED, EXIT_OK
from tidemill.domain.errors import Conflict, InvalidValue
from tidemill.settings import ServerSection

ADDRESS_FILE = "server.json"
CREDENTIALS_FILE = "root-credentials.json"
_BACKLOG = 512
_GRACE_S = 5
"""Seconds that open streams have to end after a signal."""

_OPTIONS = [
    option("data", str | None, "--data", metavar="DIR", help="Folder for everything it keeps."),
    option("host", str | None, "--host", metavar="ADDRESS", help="Address to listen on."),
    option("port", str | None, "--port", metavar="PORT", help="Port; 0 takes a free one."),
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(
        app,
        "serve",
        server=False,
        overrides={"data": "data", "host": "server.host", "port": "server.port"},
        more=_OPTIONS,
    )(serve)


def serve(call: Call, **_: object) -> int:
    r"""Start a server on this machine, with everything it needs inside. Ctrl-C stops it; its instances go on.

    \b
    tidemill serve                            data under ~/.local/share/tidemill
    tidemill serve --data ./data --port 0     another folder, a free port

    A server that is started again goes on with its tasks where they were.
    """
    settings = call.loaded.settings
    folder = settings.data
    _make_folder(folder)
    with _only_one(folder), _listening(settings.server) as listener:
        address = f"http://{_host_in_url(settings.server.host)}:{listener.getsockname()[1]}"
        # The server's stack takes a second to import; a folder or port that cannot be had is refused before that.
        from tidemill.bootstrap import build_server
        from tidemill.cli.asgi import serve_until_signal

        _set_up_logging()
        server = build_server(settings.replace(server=settings.server.replace(port=listener.getsockname()[1])))

        def ready() -> None:
            _write_address(folder / ADDRESS_FILE, settings.server.public_url or address)
            call.out.document({"url": address, "data": str(folder), "credentials": str(folder / CREDENTIALS_FILE)})
            call.out.line(f"Tidemill listens on  {address}")
            call.out.line(f"Data                 {folder}")
            call.out.line(f"Credentials          {folder / CREDENTIALS_FILE}")
            call.out.note("Ctrl-C stops the server. Instances at work go on; it takes them over when it is back.")

        try:
            good = serve_until_signal(server, listener, ready, grace_s=_GRACE_S)
        finally:
            (folder / ADDRESS_FILE).unlink(missing_ok=True)
    call.out.note("Stopped." if good else "The server could not start; the log above says why.")
    return EXIT_OK if good else EXIT_FAILED


def _set_up_logging() -> None:
    """Warnings and errors on standard error, with the time."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _make_folder(folder: Path) -> None:
    """The data folder, for nobody else's eyes: also where `tidemill run` made it first, or somebody by hand."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise InvalidValue(
            f"{str(folder)!r} cannot be made: {error.strerror}.", field="--data", remedy="Choose another folder."
        ) from error


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Holds the folder; the kernel gives it back when this process ends, however it ends."""
    descriptor = os.open(folder / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise Conflict(
                f"a server (process {holder or 'unknown'}) already works in {str(folder)!r}.",
                field="--data",
                remedy="Stop it, or give another folder with --data.",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _listening(server: ServerSection) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    # With its protocol named: asyncio sets TCP_NODELAY only then, without which every small answer waits 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((server.host, server.port))
        except OSError as error:
            raise Conflict(
                f"{server.host}:{server.port} cannot be listened on: {error.strerror or error}.",
                field="--port",
                remedy="Give another one with --port; 0 takes a free one.",
            ) from error
        listener.listen(_BACKLOG)
        yield listener


def _write_address(path: Path, url: str) -> None:
    """Leaves the address where the command line of this machine looks for it, for as long as the server is there."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
    temporary.replace(path)


def _host_in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104
    return f"[{host}]" if ":" in host else host
