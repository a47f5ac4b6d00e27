"""What every engine does, tried on the process engine and on the fake; then what only real processes can do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.fakes.engine import FakeEngine, Machine
from tests.integration.runtime_coordinator import Bench, HttpDoor
from tidemill.domain.errors import EngineFailed
from tidemill.domain.ids import InstanceId
from tidemill.engines import cgroups, procfs
from tidemill.engines.process import Limits, ProcessEngine
from tidemill.ports.engine import Engine, Launch, Observation, Resources, Seen
from tidemill_runtime.contract import EXIT_FATAL, EXIT_STOPPED, Channel, Fault, InputFormat, Manifest, ResultFormat

CAPACITY = Resources(2000, 2 << 30)
GONE = InstanceId("batch-0000000000000000-r1-0-a9")
WITHIN_S = 20.0
T = TypeVar("T")

# What an instance of these tests does; a word of its manifest's command. The fake plays it by its own means.
AGENT = """
import json, os, signal, sys, time
manifest = json.load(open(sys.argv[1]))
word, *rest = manifest["command"]
folder = os.path.dirname(sys.argv[1])
def tell(name, value):
    path = os.path.join(folder, name)
    with open(path + ".new", "w") as out:
        json.dump(value, out)
    os.rename(path + ".new", path)
if word == "wait":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    print("ready", flush=True)
    time.sleep(600)
elif word == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("ready", flush=True)
    time.sleep(600)
elif word == "exit":
    print("bye", flush=True)
    sys.exit(int(rest[0]))
elif word == "fault":
    tell("exit.json", {"code": 3, "fault": {"kind": "model_load_failed", "message": "no weights"}})
    sys.exit(3)
elif word == "python":
    exec(rest[0])
"""


class Kit(Protocol):
    """An engine of one kind and the ways to make its instances do things."""

    def engine(self) -> Engine:
        """A new engine object over the same machine: a server that was started again."""

    def play(self, launch: Launch) -> None:
        """Makes the launched instance do what its command says."""


class ProcessKit:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.script = root / "agent.py"
        self.script.write_text(AGENT)

    def engine(self, **limits: int) -> ProcessEngine:
        agent = (sys.executable, "-I", "-S", str(self.script))
        return ProcessEngine(self.root / "engine", CAPACITY, Limits(**limits), agent)

    def play(self, launch: Launch) -> None:
        pass


class FakeKit:
    def __init__(self) -> None:
        self.machine = Machine()
        self.fake = FakeEngine(CAPACITY, machine=self.machine)

    def engine(self) -> FakeEngine:
        self.fake = FakeEngine(CAPACITY, machine=self.machine)
        return self.fake

    def play(self, launch: Launch) -> None:
        word, *rest = launch.manifest.command or ["wait"]
        if word == "wait":
            self.fake.write(launch.instance, b"ready\n")
        elif word == "stubborn":
            self.fake.write(launch.instance, b"ready\n")
            self.fake.stubborn.add(launch.instance)
        elif word == "exit":
            self.fake.write(launch.instance, b"bye\n")
            self.fake.end(launch.instance, int(rest[0]))
        elif word == "fault":
            self.fake.end(launch.instance, 3, Fault("model_load_failed", "no weights"))


def launch(number: int, *command: str, memory_bytes: int = 256 << 20, env: dict[str, str] | None = None) -> Launch:
    instance = InstanceId(f"batch-0000000000000000-r1-{number}-a1")
    manifest = Manifest(
        version=1,
        task="batch-0000000000000000",
        run="batch-0000000000000000-r1",
        instance=instance,
        channel=Channel("http", "http://127.0.0.1:1/", "a token"),
        model=None,
        code=None,
        command=list(command),
        input=InputFormat("jsonl"),
        result=ResultFormat(),
        millicores=1000,
        memory_bytes=memory_bytes,
        scratch="",
        env=env or {},
    )
    return Launch(instance, manifest, Resources(1000, memory_bytes))


def until(look: Callable[[], T | None]) -> T:
    """What `look` returns as soon as that is true."""
    deadline = time.monotonic() + WITHIN_S
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)
    return seen


def ended(engine: Engine, instance: InstanceId) -> Observation:
    def look() -> Observation | None:
        [seen] = engine.observe([instance])
        return seen if seen.seen is Seen.EXITED else None

    return until(look)


def log_has(engine: Engine, instance: InstanceId, text: bytes) -> None:
    until(lambda: text in engine.logs(instance, 0, 1 << 20)[0])


@pytest.fixture(params=["process", "fake"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kit]:
    made: Kit = ProcessKit(tmp_path) if request.param == "process" else FakeKit()
    yield made
    made.engine().forget([launch(number).instance for number in range(8)])
    assert not [name for name in os.listdir("/proc") if name.isdigit() and _is_under(name, tmp_path)]


def _is_under(pid: str, folder: Path) -> bool:
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def start(kit: Kit, engine: Engine, one: Launch) -> InstanceId:
    engine.launch([one])
    kit.play(one)
    return one.instance


# Every engine


def test_runs_until_it_is_told_to_stop(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "wait"))
    assert engine.observe([instance]) == [Observation(instance, Seen.RUNNING)]
    log_has(engine, instance, b"ready")
    engine.terminate([instance], grace_s=60)
    assert ended(engine, instance) == Observation(
        instance, Seen.EXITED, EXIT_STOPPED, None, ended(engine, instance).evidence
    )


def test_observations_come_in_the_order_asked_for(kit: Kit) -> None:
    engine = kit.engine()
    first, second = (start(kit, engine, launch(0, "wait")), start(kit, engine, launch(1, "exit", "0")))
    ended(engine, second)
    seen = engine.observe([GONE, second, first])
    assert [each.instance for each in seen] == [GONE, second, first]
    assert [each.seen for each in seen] == [Seen.UNKNOWN, Seen.EXITED, Seen.RUNNING]


@pytest.mark.parametrize("code", [0, 1, 3, 4, 5])
def test_tells_the_exit_code(kit: Kit, code: int) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "exit", str(code)))
    assert ended(engine, instance).exit_code == code


def test_tells_the_fault_that_the_agent_reported(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "fault"))
    seen = ended(engine, instance)
    assert (seen.exit_code, seen.fault) == (EXIT_FATAL, Fault("model_load_failed", "no weights"))


def test_shows_the_end_of_the_log_as_evidence_of_a_crash(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "exit", "1"))
    assert "bye" in ended(engine, instance).evidence


def test_launching_again_starts_nothing(kit: Kit) -> None:
    engine = kit.engine()
    one = launch(0, "exit", "3")
    start(kit, engine, one)
    before = ended(engine, one.instance)
    engine.launch([one, one])
    kit.engine().launch([one])
    assert engine.observe([one.instance]) == [before]
    assert engine.logs(one.instance, 0, 100)[0] == b"bye\n"


def test_an_engine_made_anew_sees_the_same(kit: Kit) -> None:
    engine = kit.engine()
    running, over = (start(kit, engine, launch(0, "wait")), start(kit, engine, launch(1, "exit", "3")))
    ended(engine, over)
    before = engine.observe([running, over, GONE])
    assert kit.engine().observe([running, over, GONE]) == before


def test_kills_after_the_grace_and_not_before(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "stubborn"))
    log_has(engine, instance, b"ready")
    engine.terminate([instance], grace_s=3600)
    assert engine.observe([instance])[0].seen is Seen.RUNNING
    engine.terminate([instance], grace_s=0.05)
    assert ended(engine, instance).exit_code == -signal.SIGKILL


def test_terminating_what_has_ended_or_never_was_is_no_error(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "exit", "0"))
    ended(engine, instance)
    engine.terminate([instance, GONE], grace_s=0)
    assert [each.exit_code for each in engine.observe([instance, GONE])] == [0, None]


def test_forgetting_leaves_no_trace_but_the_log(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "wait"))
    log_has(engine, instance, b"ready")
    engine.forget([instance, GONE])
    assert engine.observe([instance]) == [Observation(instance, Seen.UNKNOWN)]
    assert engine.logs(instance, 0, 100)[0] == b"ready\n"
    engine.forget([instance])


def test_reads_the_log_from_an_offset(kit: Kit) -> None:
    engine = kit.engine()
    instance = start(kit, engine, launch(0, "exit", "0"))
    ended(engine, instance)
    assert engine.logs(instance, 0, 2) == (b"by", 2)
    assert engine.logs(instance, 2, 100) == (b"e\n", 4)
    assert engine.logs(instance, 4, 100) == (b"", 4)
    assert engine.logs(GONE, 0, 100) == (b"", 0)


def test_tells_its_capacity(kit: Kit) -> None:
    assert kit.engine().capacity() == CAPACITY


# Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessKit]:
    kit = ProcessKit(tmp_path)
    yield kit
    kit.engine().forget([launch(number).instance for number in range(8)])
    left = [group for one in cgroups.hierarchies() for group in one.base.glob(f"{kit.engine()._group_prefix}*")]
    assert left == []


def needs_group_with(*names: str) -> None:
    """Skips where no group that this user may make has one of these files."""
    made = cgroups.make(cgroups.hierarchies(), "tidemill-probe", cgroups.GroupLimits(1 << 30, 1000, 100))
    found = any((group / name).exists() for group in made for name in names)
    cgroups.remove(made)
    if not found:
        pytest.skip(f"this user may not make control groups with {names[0]}")


def python(number: int, code: str, **more: object) -> Launch:
    return launch(number, "python", textwrap.dedent(code), **more)  # type: ignore[arg-type]


def told(engine: ProcessEngine, instance: InstanceId, name: str = "told.json") -> dict[str, object]:
    """What the instance wrote by `tell`."""
    path = engine._place(instance).folder / name
    until(path.exists)
    read: dict[str, object] = json.loads(path.read_text())
    return read


def test_an_instance_has_no_more_than_it_needs(processes: ProcessKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the server")
    engine = processes.engine(file_bytes=12345678, open_files=321)
    code = """
        import resource
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        tell("told.json", {
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "session": os.getsid(0) == os.getpid(),
            "umask": status["Umask"].strip(),
            "no_new_privs": status["NoNewPrivs"].strip(),
            "caps": [int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
            "core": resource.getrlimit(resource.RLIMIT_CORE),
            "file": resource.getrlimit(resource.RLIMIT_FSIZE),
            "open": resource.getrlimit(resource.RLIMIT_NOFILE),
            "cores": len(os.sched_getaffinity(0)),
            "fds": sorted(os.listdir("/proc/self/fd"))[:3],
            "stdin": os.readlink("/proc/self/fd/0"),
        })
    """
    one = python(0, code, env={"GREETING": "hello"})
    engine.launch([one])
    seen = told(engine, one.instance)
    place = engine._place(one.instance)
    env = seen["env"]
    assert isinstance(env, dict)
    assert "AWS_SECRET_ACCESS_KEY" not in env
    assert (env["GREETING"], env["HOME"], env["TMPDIR"]) == ("hello", str(place.scratch), str(place.scratch))
    assert seen["cwd"] == str(place.scratch)
    assert (seen["session"], seen["umask"], seen["no_new_privs"]) == (True, "0077", "1")
    assert (seen["core"], seen["file"], seen["open"]) == ([0, 0], [12345678, 12345678], [321, 321])
    assert (seen["cores"], seen["stdin"]) == (1, "/dev/null")
    if os.geteuid() == 0:
        assert set(seen["caps"]) <= {0, 2}  # type: ignore[call-overload]
    assert (place.folder / "manifest.json").stat().st_mode & 0o777 == 0o600
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert json.loads((place.folder / "manifest.json").read_text())["scratch"] == str(place.scratch)


def test_two_launches_at_once_start_one(processes: ProcessKit) -> None:
    one = python(0, 'print("started", flush=True); time.sleep(600)')
    barrier = threading.Barrier(8)

    def go() -> None:
        engine = processes.engine()
        barrier.wait()
        engine.launch([one])

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = processes.engine()
    log_has(engine, one.instance, b"started")
    engine.terminate([one.instance], grace_s=0)
    ended(engine, one.instance)
    assert engine.logs(one.instance, 0, 100)[0] == b"started\n"


def test_a_launch_waits_for_one_that_a_dead_server_began(
    processes: ProcessKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was killed after the fork and before the instance had noted who it is."""
    slow = processes.root / "slow_spawn.py"
    real = Path(sys.modules["tidemill.engines.spawn"].__file__ or "")
    slow.write_text(
        "import time\ntime.sleep(0.3)\n" + real.read_text().replace("from __future__ import annotations", "")
    )
    one = python(0, 'print("started", flush=True); time.sleep(600)')
    with monkeypatch.context() as patched:
        patched.setattr("tidemill.engines.spawn.__file__", str(slow))
        processes.engine().launch([one])
    engine = processes.engine()
    assert not (engine._place(one.instance).folder / "pid.json").exists()
    engine.launch([one])
    assert engine.observe([one.instance])[0].seen is Seen.RUNNING
    log_has(engine, one.instance, b"started")
    engine.terminate([one.instance], grace_s=0)
    ended(engine, one.instance)
    assert engine.logs(one.instance, 0, 100)[0] == b"started\n"


def test_an_instance_lives_through_its_server_and_is_found_again(processes: ProcessKit) -> None:
    """Launched by a process that is killed; observed by another, which is not its parent."""
    running, fails = launch(0, "wait"), launch(1, "fault")
    server = os.fork()
    if server == 0:
        try:
            processes.engine().launch([running, fails])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) == -signal.SIGKILL
    engine = processes.engine()
    log_has(engine, running.instance, b"ready")
    assert engine.observe([running.instance])[0].seen is Seen.RUNNING
    seen = ended(engine, fails.instance)
    assert (seen.exit_code, seen.fault) == (3, Fault("model_load_failed", "no weights"))
    engine.terminate([running.instance], grace_s=60)
    assert ended(engine, running.instance).exit_code is None  # nobody was there to be told


@pytest.mark.parametrize("grouped", [True, False])
def test_nothing_that_it_started_outlives_it(
    processes: ProcessKit, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    if grouped and not cgroups.hierarchies():
        pytest.skip("this user may not make control groups")
    if not grouped:
        monkeypatch.setattr("tidemill.engines.cgroups.hierarchies", list)
    engine = processes.engine()
    code = """
        pids = []
        for escape in range(3):
            down, up = os.pipe()
            if os.fork() == 0:
                if escape:
                    os.setsid()
                if escape == 2 and os.fork():
                    os._exit(0)
                os.write(up, str(os.getpid()).encode())
                time.sleep(600)
            pids.append(int(os.read(down, 20)))
        tell("told.json", {"pids": pids})
        sys.exit(0)
    """
    one = python(0, code)
    engine.launch([one])
    pids = told(engine, one.instance)["pids"]
    assert isinstance(pids, list)
    assert len(pids) == 3
    assert ended(engine, one.instance).exit_code == 0
    until(lambda: all((seen := procfs.stat(pid)) is None or seen.dead for pid in pids))


def test_an_instance_that_forks_without_end_is_held_and_killed(processes: ProcessKit) -> None:
    needs_group_with("pids.max")
    engine = processes.engine(processes=40)
    code = """
        count = 0
        while True:
            try:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(600)
                count += 1
            except BlockingIOError:
                tell("told.json", {"count": count})
                time.sleep(600)
    """
    one = python(0, code)
    engine.launch([one])
    assert told(engine, one.instance)["count"] == 39
    groups = engine._place(one.instance).groups()
    assert len(cgroups.members(groups)) == 40
    engine.terminate([one.instance], grace_s=0)
    assert ended(engine, one.instance).exit_code == -signal.SIGKILL
    until(lambda: not cgroups.members(groups))


def test_memory_beyond_the_limit_is_refused_by_the_kernel(processes: ProcessKit) -> None:
    needs_group_with("memory.max", "memory.limit_in_bytes")
    engine = processes.engine(memory_slack_bytes=0)
    one = python(0, 'x = b"1" * (200 << 20); print("had it all")', memory_bytes=64 << 20)
    engine.launch([one])
    seen = ended(engine, one.instance)
    assert seen.exit_code == -signal.SIGKILL
    assert seen.fault is not None
    assert seen.fault.kind == "out_of_memory"
    assert processes.engine().observe([one.instance]) == [seen]


def test_a_flood_of_output_takes_bounded_space(processes: ProcessKit) -> None:
    engine = processes.engine(log_bytes=1 << 20)
    one = python(
        0,
        """
        for number in range(400_000):
            os.write(1, b"%07d a line of a flood of output, much of it\\n" % number)
        print("the end", flush=True)
        time.sleep(600)
        """,
    )
    engine.launch([one])
    log = engine._place(one.instance).log
    log_end = log.parent / log.name
    until(lambda: engine.observe([one.instance]) and log_end.exists() and b"the end" in log_end.read_bytes()[-8:])
    engine.observe([one.instance])
    assert log.stat().st_blocks * 512 <= (1 << 20) + 8192
    read, offset = b"", 0
    while True:
        more, offset = engine.logs(one.instance, offset, 65536)
        if not more:
            break
        read += more
    assert read.startswith(b"0000000 ")
    assert read.endswith(b"the end\n")
    assert offset == log.stat().st_size
    assert b"\0" not in read


def test_a_huge_environment_is_refused_with_a_reason(processes: ProcessKit) -> None:
    engine = processes.engine()
    one = launch(0, "wait", env={f"NAME_{number}": "x" * 100_000 for number in range(200)})
    engine.launch([one])
    seen = ended(engine, one.instance)
    assert seen.fault is not None
    assert "could not be set up" in seen.evidence
    assert "Argument list too long" in seen.evidence


def test_an_agent_that_cannot_start_says_why(processes: ProcessKit) -> None:
    processes.script.unlink()
    engine = processes.engine()
    one = launch(0, "wait")
    engine.launch([one])
    seen = ended(engine, one.instance)
    assert seen.exit_code == 2
    assert "No such file" in seen.evidence


def test_a_root_that_cannot_be_written_is_an_error_that_names_the_instance(processes: ProcessKit) -> None:
    engine = processes.engine()
    shutil.rmtree(processes.root / "engine")
    with pytest.raises(EngineFailed, match=launch(0).instance):
        engine.launch([launch(0, "wait")])


def test_forgetting_removes_what_the_instance_has_locked_away(processes: ProcessKit) -> None:
    engine = processes.engine()
    one = python(
        0, 'os.makedirs("a/b"); open("a/b/c", "w").close(); os.chmod("a/b", 0); os.chmod("a", 0); tell("told.json", {})'
    )
    engine.launch([one])
    told(engine, one.instance)
    engine.forget([one.instance])
    assert not engine._place(one.instance).folder.exists()


def test_another_process_with_the_pid_is_not_taken_for_the_instance(processes: ProcessKit) -> None:
    engine = processes.engine()
    one = launch(0, "exit", "0")
    engine.launch([one])
    ended(engine, one.instance)
    mine = procfs.stat(os.getpid())
    assert mine is not None
    noted = {"pid": mine.pid, "start_ticks": mine.start_ticks - 1, "boot": procfs.boot_id()}
    (engine._place(one.instance).folder / "pid.json").write_text(json.dumps(noted))
    assert engine.observe([one.instance])[0].seen is Seen.EXITED
    engine.terminate([one.instance], grace_s=0)
    engine.forget([one.instance])


def test_an_instance_of_before_the_last_boot_has_ended(processes: ProcessKit) -> None:
    engine = processes.engine()
    one = launch(0, "wait")
    engine.launch([one])
    log_has(engine, one.instance, b"ready")
    path = engine._place(one.instance).folder / "pid.json"
    real = path.read_text()
    path.write_text(json.dumps({**json.loads(real), "boot": "another"}))
    assert processes.engine().observe([one.instance])[0].seen is Seen.EXITED
    path.write_text(real)


def test_old_logs_of_forgotten_instances_are_dropped(processes: ProcessKit) -> None:
    engine = processes.engine()
    kept, dropped = launch(0, "exit", "0"), launch(1, "exit", "0")
    for one in (kept, dropped):
        engine.launch([one])
        ended(engine, one.instance)
    engine.forget([dropped.instance])
    engine.drop_logs_before(time.time() + 60)
    assert engine.logs(kept.instance, 0, 10)[0] == b"bye\n"
    assert engine.logs(dropped.instance, 0, 10)[0] == b""


def test_the_machine_has_something_to_give(tmp_path: Path) -> None:
    seen = ProcessEngine(tmp_path).capacity()
    assert seen.millicores >= 1000
    assert (128 << 20) < seen.memory_bytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_real_agent_works_within_its_limits(tmp_path: Path) -> None:
    """The runtime under this engine, over HTTP, with a stripped environment and dropped rights."""
    bench = Bench(tmp_path / "bench")
    bench.model(
        """
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [record["n"] * 2 for record in batch]
        """
    ).file("a.jsonl", "".join(f'{{"n": {number}}}\n' for number in range(1000)))
    coordinator = bench.coordinator(bench.ranges(3000))
    engine = ProcessEngine(tmp_path / "engine", CAPACITY)
    instance = InstanceId("batch-0000000000000000-r1-0-a1")
    with HttpDoor(coordinator) as door:
        manifest = bench.manifest(Channel("http", door.url, "secret"), instance=instance)
        engine.launch([Launch(instance, manifest, Resources(1000, 512 << 20))])
        seen = ended(engine, instance)
    assert (seen.exit_code, seen.fault) == (0, None), engine.logs(instance, 0, 10_000)
    assert coordinator.results() == {"a.jsonl": "".join(f"{number * 2}\n" for number in range(1000)).encode()}
    engine.forget([instance])
