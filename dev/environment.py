"""Makes `.venv` what a lock file says; run by dev/setup with the Python that the environment shall have.

The environment is built by a pinned uv from a lock with hashes, then both packages of this repository are installed
editable. `dev` holds everything; `demo` only what `make demo` needs, a third of the download. A `dev` environment
serves both. Stamp files tell make that nothing is left to do.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

UV_VERSION = "0.13.9"
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = {"dev": ROOT / "requirements.lock", "demo": ROOT / "requirements-demo.lock"}


def main(kind: str) -> int:
    """Bring `.venv` up to date for `kind` (`dev` or `demo`). Returns the exit status; explains a failure on stderr."""
    started_s = time.monotonic()
    with (ROOT / ".setup.lock").open("w") as guard:
        # Two `make` at once would write the same environment; the second waits, then finds it done.
        fcntl.flock(guard, fcntl.LOCK_EX)
        if is_current(kind):
            return 0
        say(f"making .venv from {LOCKS[kind].name} with Python {sys.version.split()[0]} (once; under a minute)")
        try:
            build(kind)
        except subprocess.CalledProcessError as error:
            say(f"failed: {' '.join(map(str, error.cmd))} ended with {error.returncode}; its message is above.")
            say("Is a package index within reach? After repairing it, run the same command again.")
            return 1
    say(f"done in {time.monotonic() - started_s:.0f} s")
    return 0


def is_current(kind: str) -> bool:
    """Whether the stamp of `kind` is newer than all that it was made from, as make judges it."""
    stamp = VENV / f".ready-{kind}"
    sources = [LOCKS[kind], ROOT / "pyproject.toml", ROOT / "runtime/pyproject.toml", ROOT / "dev/environment.py"]
    return stamp.exists() and stamp.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def build(kind: str) -> None:
    """Create or update the environment, then stamp it."""
    if kind == "demo" and is_current("dev"):
        (VENV / ".ready-demo").touch()
        return
    ensure_uv()
    for stamp in VENV.glob(".ready-*"):
        stamp.unlink()
    uv("sync", "--require-hashes", str(LOCKS[kind]))
    # The build backend comes from the lock too, hence no isolation; --no-deps, for the lock is the whole truth.
    uv("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT / "runtime"), "-e", str(ROOT))
    for each in ("demo", "dev") if kind == "dev" else ("demo",):
        (VENV / f".ready-{each}").touch()


def ensure_uv() -> None:
    """Have the pinned uv in `.venv`; the environment is made anew when its Python is gone or too old."""
    python = VENV / "bin/python"
    if output_of(python, "-c", "import sys; print(sys.version_info >= (3, 11))") != "True":
        venv.create(VENV, clear=True, with_pip=True)
    if output_of(VENV / "bin/uv", "--version").split()[:2] != ["uv", UV_VERSION]:
        if not output_of(python, "-m", "pip", "--version"):
            run(python, "-m", "ensurepip", "--default-pip")
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV_VERSION}")


def uv(*arguments: str) -> None:
    """Run `uv pip …` on `.venv`."""
    # As pip does, uv trusts the machine's own certificates too: behind a company's proxy there is no other way.
    environment = {"UV_SYSTEM_CERTS": "1", **os.environ, "VIRTUAL_ENV": str(VENV), "UV_NO_PROGRESS": "1"}
    run(VENV / "bin/uv", "pip", *arguments[:1], "--quiet", *arguments[1:], environment=environment)


def run(*command: str | Path, environment: dict[str, str] | None = None) -> None:
    """Run to the end; raises CalledProcessError when it fails. Its messages go where ours go."""
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT, env=environment, stdout=sys.stderr)


def output_of(*command: str | Path) -> str:
    """What a command prints, or nothing when it is missing or fails."""
    try:
        done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def say(message: str) -> None:
    """Tell the person at the terminal; standard output stays that of the target."""
    print(f"setup: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
