"""A command that reads records as lines on its standard input and writes a prediction for each on its standard output.

One process for a worker's whole life, spoken to over pipes that are written and read at the same time. A command that
holds its output back until its input ends (most filters do, unless told otherwise) is found out by its silence, and
from then on is started anew for each mini-batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import termios
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

import msgspec

from tidemill_runtime import memory
from tidemill_runtime.codec.jsonl import decode_block
from tidemill_runtime.faults import FatalError, log
from tidemill_runtime.models.child import END_PATIENCE_S, STARTS_IN_VAIN, Ended, Program, find_program
from tidemill_runtime.models.commands import environment, filled_in
from tidemill_runtime.models.outside import Clock, RecordFault
from tidemill_runtime.models.port import Model, folders_of
from tidemill_runtime.models.returned import WrongLength
from tidemill_runtime.models.shapes import RECORD

if TYPE_CHECKING:
    from tidemill_runtime.contract import Command, Manifest
    from tidemill_runtime.models.kinds import PackageInfo

SILENCE_S = 1.5
"""A command that has read all, computes nothing and answers nothing for so long is asked by the end of its input."""
PROMPT_S = 1.0
"""An answer that comes so soon after the end of the input was held back until then."""

SILENCE_LEAST_S = 0.5
SETTLING_S = 0.02
"""How long a command that has answered may be busy before it is believed to have said all."""
_SETTLING_STEP_S = 0.0002
_LOOK_EVERY_S = 0.1
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_QUOTED_BYTES = 200


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The command, started: it may load its model while the first records are read. Raises FatalError."""
    command: Command = info.options["command"]
    env = environment(manifest)
    folders = folders_of(manifest)
    words = filled_in(command.run, manifest)
    words[0] = find_program(words[0], list(folders), env.get("PATH", os.defpath))
    program = Program(words, folders[0] if folders else manifest.scratch, env)
    lines = Lines(program, command, plain=manifest.input.type in ("text", "file"))
    lines.start()
    return Model(lines.predict, RECORD, True, lines.close, folders, lines.clock)


class _Talk:
    """One mini-batch on its way through the pipes."""

    def __init__(self, data: bytes, count: int, silence: _Silence) -> None:
        self.size = len(data)
        self.rest = memoryview(data)
        self.count = count
        self.silence = silence
        self.said: list[bytes] = []
        self.refused = False  # the command has closed its input; what it writes still counts
        self.in_vain = False  # it ended before it had read anything
        self.lines = 0
        self.started = time.monotonic()
        self.closed_at: Optional[float] = None
        self.late_s = 0.0

    @property
    def written(self) -> int:
        return self.size - len(self.rest)

    def heard(self, piece: bytes) -> None:
        if not self.said and self.closed_at is not None:
            self.late_s = time.monotonic() - self.closed_at
        self.said.append(piece)
        self.lines += piece.count(b"\n")


class Lines:
    """plain: records are texts, which are lines as they are; others are written as JSON."""

    def __init__(self, program: Program, command: Command, *, plain: bool) -> None:
        self.clock = Clock()
        self._program = program
        self._answer = command.answer
        self._load_timeout_s = command.load_timeout_s
        self._encode = _text_line if plain else msgspec.json.Encoder().encode
        self._auto = command.lifetime == "auto"
        self._anew = command.lifetime == "batch"
        self._silence_s = SILENCE_S
        self._stdin = self._stdout = -1
        self._fresh = True
        self._stopped = False
        self._works = False
        self._in_vain = 0
        self._fatal: Optional[FatalError] = None

    def start(self) -> None:
        """Raises FatalError."""
        self._close_pipes()
        theirs_in, self._stdin = os.pipe()
        self._stdout, theirs_out = os.pipe()
        for fd in (self._stdin, self._stdout):
            os.set_blocking(fd, False)
            with contextlib.suppress(OSError):  # not Linux, or not allowed: more switches between the two, no harm
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._program.start(theirs_in, theirs_out)
        self._fresh, self._stopped = True, False

    def predict(self, records: list[Any]) -> list[Any]:
        """A prediction for each record. Raises WrongLength, RecordFault, FatalError."""
        if self._fatal is not None:
            raise self._fatal
        data = b"\n".join([self._encode(record) for record in records]) + b"\n"
        try:
            while True:
                self._make_ready()
                talk, ended = self._exchange(data, len(records))
                if ended is None or not self._in_vain_again(talk, ended):
                    return self._predictions(talk, ended)
        except FatalError as error:
            self._fatal = error
            raise

    def close(self) -> None:
        if not self._anew and self._stdin >= 0 and self._program.ended() is None:
            self._end_of_input()
            if self._program.ended(END_PATIENCE_S) is not None and not self._fresh and self._unasked():
                log("the command wrote more lines than it was given; the last ones belong to no record")
        self._program.close()
        self._close_pipes()

    # -- one mini-batch

    def _make_ready(self) -> None:
        """A command that runs, and has said nothing since its last answer."""
        if self._program.pid and not self._fresh and self._unasked():
            raise FatalError(
                "model_load_failed",
                "the command wrote more lines than it was given, so which prediction is whose cannot be known; have it "
                "write one line for each line that it reads",
            )
        ended = self._program.ended()
        if ended is not None:
            if not self._anew and not self._stopped:
                log(f"the command {ended.words}; it is started again")
            self.start()

    def _exchange(self, data: bytes, count: int) -> tuple[_Talk, Optional[Ended]]:
        """Writes the lines and reads the answer, at the same time; how the command ended, if it did."""
        talk = _Talk(data, count, _Silence(self._program.pid, self._silence_s))
        if self._fresh:
            self.clock.stop()
        while True:
            if self._anew and not talk.rest and self._stdin >= 0 and (self._works or not self._unread()):
                self._end_of_input(talk)
            ready = self._wait(talk)
            if self._stdin in ready:
                self._write(talk)
            if self._stdout in ready:
                piece = os.read(self._stdout, _PIPE_BYTES)
                if not piece:
                    return talk, self._over(talk)
                talk.heard(piece)
                if talk.lines >= count and not talk.rest and self._stdin >= 0 and not self._anew and self._waits(talk):
                    self._begun()
                    return talk, None
            self._look(talk, idle=not ready)

    def _look(self, talk: _Talk, *, idle: bool) -> None:
        """Whether it has begun to read, and whether it has fallen silent."""
        unread = self._unread()
        if self._fresh and (talk.said or unread < talk.written):
            self._begun()
        elif self._fresh and time.monotonic() - talk.started > self._load_timeout_s:
            raise FatalError(
                "model_load_failed",
                f"the command read nothing of its input in {self._load_timeout_s:g} s; raise command.load_timeout if "
                "it needs longer to start",
            )
        if idle and self._stdin >= 0 and not talk.rest and not unread and talk.silence.lasts():
            if self._auto:
                self._end_of_input(talk)
                return
            log(
                f"the command has read its records and answered nothing for {self._silence_s:g} s; if it answers only "
                "when its input ends, have it flush each line, or set command.lifetime to batch"
            )
            self._silence_s *= 10.0
            talk.silence = _Silence(self._program.pid, self._silence_s)

    def _over(self, talk: _Talk) -> Ended:
        """How it ended, after its output did; one that goes on without an output is made to end."""
        if self._stdin >= 0 and not talk.said and self._unread() >= talk.written:
            talk.in_vain = True
        self._begun()
        ended = self._program.ended(END_PATIENCE_S)
        if ended is None:
            stopped = self._program.stop()
            ended = Ended(0, stopped.said if stopped is not None else "")
        self._close_pipes()
        if self._auto and talk.closed_at is not None and not self._anew:
            self._learn(talk.late_s, complete=talk.lines == talk.count and ended.status == 0)
        return ended

    def _learn(self, late_s: float, *, complete: bool) -> None:
        """What the end of the input has brought: was the answer held back, or was the command just slow?"""
        if complete and late_s <= PROMPT_S:
            self._anew = True
            log(
                "the command answers only when its input ends, so it is started anew for each mini-batch (command."
                "lifetime: batch); have it flush each line to be started once"
            )
        elif complete:
            self._silence_s *= 4.0
        else:  # some lines are missing: finding for which record need not take long
            self._silence_s = max(SILENCE_LEAST_S, self._silence_s / 2)

    def _predictions(self, talk: _Talk, ended: Optional[Ended]) -> list[Any]:
        if ended is not None and ended.status != 0:
            raise RecordFault("crash", "CommandDied", f"the command {ended.words}", ended.trace)
        data = b"".join(talk.said)
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()  # of whole lines nothing is left
        if len(lines) != talk.count:
            if ended is None:
                self._program.stop()  # what it says from now on could belong to any record
                self._stopped = True
            raise WrongLength(f"the command wrote {len(lines)} lines for {talk.count} records")
        self._works = True
        return _values(data, lines, self._answer)

    def _in_vain_again(self, talk: _Talk, ended: Ended) -> bool:
        """Whether it ended before it read anything: no record is to blame, but it cannot go on for ever."""
        if not talk.in_vain:
            self._in_vain = 0
            return False
        self._in_vain += 1
        if self._in_vain >= STARTS_IN_VAIN:
            raise FatalError(
                "model_load_failed", f"the command {ended.words}, without reading a record", ended.words, ended.trace
            )
        return True

    # -- pipes

    def _wait(self, talk: _Talk) -> list[int]:
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        if talk.rest and self._stdin >= 0 and not talk.refused:
            poll.register(self._stdin, select.POLLOUT)
        return [fd for fd, _ in poll.poll(_LOOK_EVERY_S * 1000)]

    def _write(self, talk: _Talk) -> None:
        try:
            talk.rest = talk.rest[os.write(self._stdin, talk.rest[:_PIPE_BYTES]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            talk.refused = True

    def _waits(self, talk: _Talk) -> bool:
        """Whether the command has said all that it has to say, as far as can be known: it sleeps, and nothing is left
        in the pipe. True too where there is already too much.
        """
        give_up_at = time.monotonic() + SETTLING_S
        while talk.lines == talk.count:
            asleep = not self._unread() and _sleeps(self._program.pid)
            if select.select([self._stdout], [], [], 0)[0]:
                return False
            if asleep or time.monotonic() > give_up_at:
                return True
            time.sleep(_SETTLING_STEP_S)
        return True

    def _unread(self) -> int:
        """Bytes that were written and that the command has not read."""
        if self._stdin < 0:
            return 0
        return int(struct.unpack("i", fcntl.ioctl(self._stdin, termios.FIONREAD, bytes(4)))[0])

    def _unasked(self) -> bytes:
        """What the command has said without being asked."""
        try:
            return os.read(self._stdout, _PIPE_BYTES) if self._stdout >= 0 else b""
        except BlockingIOError:
            return b""

    def _begun(self) -> None:
        """It reads: from now on time counts against the records."""
        if self._fresh:
            self._fresh = False
            self.clock.go()

    def _end_of_input(self, talk: Optional[_Talk] = None) -> None:
        os.close(self._stdin)
        self._stdin = -1
        if talk is not None:
            talk.closed_at = time.monotonic()

    def _close_pipes(self) -> None:
        for fd in (self._stdin, self._stdout):
            if fd >= 0:
                os.close(fd)
        self._stdin = self._stdout = -1


class _Silence:
    """Whether a command does nothing at all: asked while nothing comes, and all that was written has been read."""

    def __init__(self, pid: int, patience_s: float) -> None:
        self._pid = pid
        self._patience_s = patience_s
        self._ticks = -1
        self._since = time.monotonic()

    def lasts(self) -> bool:
        now = time.monotonic()
        ticks = sum(map(_cpu_ticks, memory.family(self._pid)))
        if ticks != self._ticks:
            self._ticks, self._since = ticks, now
        return now - self._since >= self._patience_s


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _sleeps(pid: int) -> bool:
    """Whether the process, and all that it started, waits for something."""
    return all(_stat(each)[:1] in ([b"S"], [b"Z"], []) for each in memory.family(pid))


def _stat(pid: int) -> list[bytes]:
    """The fields of a process from its state on; none if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def _text_line(record: Any) -> bytes:
    text: str = record if isinstance(record, str) else os.fspath(record)
    if "\n" in text:
        raise ValueError("the record has a line break in it, and the command reads lines")
    return text.encode()


def _values(data: bytes, lines: list[bytes], kind: str) -> list[Any]:
    """The lines as predictions. kind: "json", "text", or "auto": JSON where a line is JSON, else text."""
    if kind != "text":
        block = decode_block(memoryview(data))
        if block is not None and len(block) == len(lines):
            return block
    read: Callable[[bytes], Any] = {"json": _json, "text": _text, "auto": _either}[kind]
    return [read(line) for line in lines]


_decode = msgspec.json.Decoder().decode


def _json(line: bytes) -> Any:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        shown = line[:_QUOTED_BYTES].decode("utf-8", "replace")
        raise RecordFault("model_error", "NoJson", f"the command wrote {shown!r}, which is no JSON: {error}") from None


def _text(line: bytes) -> str:
    return line[: -1 if line.endswith(b"\r") else None].decode()


def _either(line: bytes) -> Any:
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _text(line)
