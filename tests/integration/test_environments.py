"""Environments with the real uv, from wheels that the test makes: built once, kept whole, swept when unused."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.environments_world import OFFLINE, environments, needed, package, provide, source, wheel
from tidemill.domain.errors import EnvironmentFailed
from tidemill.environments.cache import Cancelled
from tidemill.environments.finding import open_environments
from tidemill.settings import EnvironmentsSection

BUILD = """
    import sys
    from pathlib import Path
    from tests.integration.environments_world import environments, provide
    print(provide(environments(Path(sys.argv[1])), Path(sys.argv[2])).folder)
"""


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def builder(root: Path, model: Path) -> subprocess.Popen[str]:
    """Another process that wants the same."""
    command = [sys.executable, "-c", textwrap.dedent(BUILD), str(root), str(model)]
    repository = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A package that needs `first`, which needs `second`; both are in its own folder."""
    folder = package(tmp_path / "model", f"{OFFLINE}first==1.0\n")
    wheel(folder / "wheels", "first", requires=("second>=1",))
    wheel(folder / "wheels", "second", "1.5")
    return folder


def test_what_is_asked_for_is_there_and_our_own_packages_are_not(tmp_path: Path, model: Path) -> None:
    said: list[str] = []
    made = provide(environments(tmp_path), model, tell=said.append)
    assert made.packages == {"first": "1.0", "second": "1.5"}
    assert said[0] == "resolving 1 requirement"
    code = """
        import json, sys, first, second, tidemill_runtime.agent, msgspec
        def absent(name):
            try:
                __import__(name)
            except ImportError:
                return True
        print(json.dumps([first.VERSION, second.VERSION, sys.prefix, absent("sqlalchemy"), absent("tidemill")]))
    """
    told = subprocess.run(
        [made.python, "-P", "-c", textwrap.dedent(code)], check=True, capture_output=True, env={}, text=True
    )
    assert json.loads(told.stdout) == ["1.0", "1.5", str(made.venv), True, True]
    with pytest.raises(ImportError):
        __import__("first")
    left = {entry.name for entry in made.folder.iterdir()}
    assert left == {"venv", "runtime", "requirements.txt", "constraints.txt"}  # not what uv was started with


def test_the_environments_own_packages_come_before_the_runtimes(tmp_path: Path) -> None:
    model = package(tmp_path / "model", f"{OFFLINE}zstandard\n-c b.txt\n")
    (model / "b.txt").write_text("zstandard==99\n")
    wheel(model / "wheels", "zstandard", "99")
    made = provide(environments(tmp_path), model)
    subprocess.run([made.python, "-c", "import zstandard; assert zstandard.VERSION == '99'"], check=True)


def test_ten_at_once_build_it_once(tmp_path: Path) -> None:
    count = tmp_path / "count"
    model = package(tmp_path / "model", "--no-index\n./slow\n")
    source(model / "slow", f"    open({str(count)!r}, 'a').write('x'); time.sleep(0.3)")
    known = environments(tmp_path)
    others = [builder(tmp_path, model) for _ in range(3)]
    with ThreadPoolExecutor(7) as pool:
        made = list(pool.map(lambda _: provide(known, model).folder, range(7)))
    told = [Path(other.communicate(timeout=60)[0].strip()) for other in others]
    assert len({*made, *told}) == 1
    assert count.read_text() == "x"
    assert [kept.environment.folder for kept in known.cache.entries()] == made[:1]


def test_killed_in_the_middle_of_building_it_is_built_anew(tmp_path: Path) -> None:
    pid, go = tmp_path / "pid", tmp_path / "go"
    model = package(tmp_path / "model", "--no-index\n./slow\n")
    body = f"""
    open({str(pid)!r}, 'w').write(str(os.getpid()))
    while not os.path.exists({str(go)!r}):
        time.sleep(0.01)"""
    source(model / "slow", body)
    first = builder(tmp_path, model)
    until(lambda: pid.exists() and pid.read_text())
    backend = int(pid.read_text())
    known = environments(tmp_path)
    half_built = list((tmp_path / "environments" / needed(known, model).digest).glob("*/venv/bin/python"))
    assert half_built
    installer = Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    until(lambda: not alive(int(installer)))  # uv dies with who waited for it
    assert known.cache.find(needed(known, model).digest) is None
    go.touch()
    made = provide(known, model)
    assert made.packages == {"slowpkg": "1.0"}
    assert not half_built[0].exists()
    until(lambda: not alive(backend))


def test_what_a_killed_one_left_is_swept(tmp_path: Path, model: Path) -> None:
    known = environments(tmp_path)
    left = known.cache.root / "0123" / "attempt"
    left.mkdir(parents=True)
    old, new = (known.cache.log_of(name) for name in ("old", "new"))
    old.parent.mkdir()
    for log in (old, new):
        log.write_text("it failed")
    os.utime(old, (1, 1))
    made = provide(known, model)
    assert not left.parent.exists()
    assert (old.exists(), new.exists(), known.cache.log_of(made.digest).exists()) == (False, True, True)
    assert made.python.exists()


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("first==1.0\nfirst==2.0", ["first==1.0 and first==2.0", "unsatisfiable"]),
        ("none-such-package==3", ["none-such-package was not found", "unsatisfiable"]),
        ("first==1.0\nsecond<1", ["first depend on second>=1", "you require second<1"]),
        ("first==1.0\n-c b.txt", ["there is no version of second==9"]),
        ("first==1.0 --hash=sha256:" + "a" * 64 + "\nsecond==1.5 --hash=sha256:" + "a" * 64, ["Hash mismatch"]),
        ("first==1.0 --hash=sha256:" + "a" * 64, ["no trusted hash was provided for: `second`"]),
    ],
)
def test_what_cannot_be_resolved_is_named_in_the_resolvers_words(
    tmp_path: Path, model: Path, requirements: str, words: list[str]
) -> None:
    (model / "requirements.txt").write_text(f"{OFFLINE}{requirements}\n")
    (model / "b.txt").write_text("second==9\n")
    known = environments(tmp_path)
    with pytest.raises(EnvironmentFailed) as failed:
        provide(known, model)
    assert all(word in failed.value.message for word in words), failed.value.message
    logged = [line.strip() for line in Path(failed.value.log).read_text().splitlines() if line.strip()]
    assert failed.value.message in "\n".join(logged)
    assert known.cache.entries() == []
    assert not (known.cache.root / needed(known, model).digest).exists()


def test_a_runtime_library_too_old_for_us_is_refused_by_the_resolver(tmp_path: Path) -> None:
    model = package(tmp_path / "model", f"{OFFLINE}msgspec==0.1\n")
    wheel(model / "wheels", "msgspec", "0.1")
    with pytest.raises(EnvironmentFailed, match=r"msgspec==0\.1 and msgspec>="):
        provide(environments(tmp_path), model)


def test_source_packages_are_refused_where_the_operator_says_so(tmp_path: Path) -> None:
    model = package(tmp_path / "model", "--no-index\n./slow\n")
    source(model / "slow")
    with pytest.raises(EnvironmentFailed, match=r"(?i)build"):
        provide(environments(tmp_path, source_builds=False), model)
    assert provide(environments(tmp_path), model).packages == {"slowpkg": "1.0"}


def test_code_that_runs_while_installing_sees_no_secret(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    model = package(tmp_path / "model", "--no-index\n./slow\n")
    source(model / "slow", f"    open({str(seen)!r}, 'w').write(repr(dict(os.environ)))")
    mine = {
        "AWS_SECRET_ACCESS_KEY": "k3y",
        "TIDEMILL_STORE__URL": "k3y",
        "HOME": "/home/k3y",
        "HTTPS_PROXY": "http://p:1",
    }
    provide(environments(tmp_path, environ=mine), model)
    assert "k3y" not in seen.read_text()
    assert "http://p:1" in seen.read_text()


def test_variables_of_pip_say_where_packages_come_from(tmp_path: Path) -> None:
    ours = environments(tmp_path, environ={"PIP_INDEX_URL": "https://a/simple", "PIP_EXTRA_INDEX_URL": "https://b"})
    found = ours._installer.variables(tmp_path)
    assert (found["UV_DEFAULT_INDEX"], found["UV_EXTRA_INDEX_URL"]) == ("https://a/simple", "https://b")
    own = {"PIP_INDEX_URL": "https://a", "UV_INDEX_URL": "https://c", "UV_PYTHON": "3.9", "HOME": str(tmp_path)}
    (tmp_path / ".config/uv").mkdir(parents=True)
    (tmp_path / ".config/uv/uv.toml").write_text("")
    (tmp_path / ".netrc").write_text("")
    found = environments(tmp_path, environ=own)._installer.variables(tmp_path / "x")
    assert found["UV_INDEX_URL"] == "https://c"
    assert not {"UV_DEFAULT_INDEX", "UV_PYTHON"} & set(found)
    assert found["UV_CONFIG_FILE"] == str(tmp_path / ".config/uv/uv.toml")
    assert (found["HOME"], found["NETRC"]) == (str(tmp_path / "x"), str(tmp_path / ".netrc"))


def test_it_is_given_up_when_asked_and_after_its_time(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    model = package(tmp_path / "model", "--no-index\n./slow\n")
    source(model / "slow", f"    open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(Cancelled):
        provide(environments(tmp_path), model, cancelled=lambda: pid.exists() and bool(pid.read_text()))
    until(lambda: not alive(int(pid.read_text())))
    with pytest.raises(EnvironmentFailed, match=r"took longer than 2 s \(environments\.install_within_s\)"):
        provide(environments(tmp_path, within_s=2), model)
    until(lambda: not alive(int(pid.read_text())))


def test_who_waits_for_another_can_give_up(tmp_path: Path, model: Path) -> None:
    known = environments(tmp_path)
    digest = needed(known, model).digest
    fd = known.cache._open_lock(digest)
    fcntl.flock(fd, fcntl.LOCK_EX)
    said: list[str] = []
    with pytest.raises(Cancelled):
        provide(known, model, cancelled=lambda: bool(said), tell=said.append)
    assert said == ["waiting for another that installs the same"]
    os.close(fd)


def test_the_least_recently_used_go_and_none_in_use(tmp_path: Path) -> None:
    known = environments(tmp_path, limit_bytes=1)
    made, held = [], []
    for number in range(3):
        folder = package(tmp_path / f"model{number}", f"{OFFLINE}part{number}\n")
        wheel(folder / "wheels", f"part{number}")
        need = needed(known, folder)
        environment, fd = known.hold(need, cancelled=lambda: False, tell=lambda _: None)
        made.append(environment)
        held.append(fd)
        os.utime(known.cache.root / need.digest / "used", (number, number))
    os.close(held[1])
    assert [kept.in_use for kept in known.cache.entries()] == [True, False, True]
    assert known.cache.sweep(300.0) == []  # it was handed out a moment ago
    assert known.cache.sweep(time.time()) == [made[1].digest]
    os.close(held[0])
    roomy = environments(tmp_path, limit_bytes=made[2].size_bytes)
    assert roomy.cache.sweep(time.time()) == [made[0].digest]
    assert made[2].python.exists()
    assert known.cache.clear() == ([], [made[2].digest])
    os.close(held[2])
    assert known.cache.clear() == ([made[2].digest], [])
    assert known.cache.entries() == []


def test_one_whose_python_is_gone_is_built_anew(tmp_path: Path, model: Path) -> None:
    known = environments(tmp_path)
    made = provide(known, model)
    made.python.unlink()
    again = provide(known, model)
    assert again.folder != made.folder
    assert again.python.exists()
    assert not made.folder.exists()


def test_use_and_removal_at_once(tmp_path: Path, model: Path) -> None:
    """Whoever holds one has it whole, however often others remove it meanwhile."""
    known = environments(tmp_path)
    need = needed(known, model)
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            known.cache.clear()

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(5):
            made, fd = known.hold(need, cancelled=lambda: False, tell=lambda _: None)
            subprocess.run([made.python, "-c", "import first, second"], check=True)
            os.close(fd)
    finally:
        over.set()
        remover.join()


def test_from_the_real_index(tmp_path: Path) -> None:
    model = package(tmp_path / "model", "iniconfig==2.0.0\n")
    known = open_environments(EnvironmentsSection(), tmp_path, {**os.environ, "UV_HTTP_RETRIES": "0"}, isolated=True)
    try:
        made = provide(known, model)
    except EnvironmentFailed as failed:
        if "Failed to fetch" in failed.message:
            pytest.skip(f"the package index cannot be reached from here: {failed.message}")
        raise
    assert made.packages == {"iniconfig": "2.0.0"}
    (model / "requirements.txt").write_text("tidemill-has-no-package-of-this-name==1\n")
    with pytest.raises(EnvironmentFailed, match="was not found in the package registry"):
        provide(known, model)
