"""What a coordinator and an instance agree on. Both sides import this module and nothing else of each other.

A coordinator (the server, or `tidemill run`) gives an instance a `Manifest` at its start. From then on the
instance sends a `Report` and gets `Orders` back, over HTTP or over an inherited socket; one exchange carries
the commits that were made, the leases that are still held and the wish for more, so that a split costs one
message. The instance never chooses where anything is stored: a lease carries scoped access to its own input
objects and to the one part that it may write.

Standard library only (Python 3.9): the domain of the control plane builds on these types. Encoded as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

CONTRACT_VERSION = 1
"""Raised with each change that an older instance cannot follow; a coordinator accepts this one and the one before."""

# Exit codes of an instance. Anything else, and any signal, is a crash. At its end an agent writes exit.json beside its
# manifest, {"code": int, "fault": Fault or null}, for a coordinator that cannot see the exit code (it was restarted).
EXIT_DONE = 0
EXIT_FATAL = 3  # the fault was reported to the coordinator and written to exit.json
EXIT_ORPHANED = 4  # the coordinator went away for longer than it may, or the socket closed
EXIT_STOPPED = 5  # told to stop, by orders or by SIGTERM

# Classes of fault of one record (ErrorRecord.fault).
RECORD_FAULTS = (
    "model_error",  # predict raised
    "wrong_length",  # the result's length differs from the batch's
    "encode_error",  # the prediction cannot be written in the result format
    "decode_error",  # the record cannot be read in the input format
    "too_long",  # the record is longer than format.max_record_bytes
    "timeout",  # predict took longer than record_timeout_s
    "crash",  # the worker process died in it
    "out_of_memory",  # the worker process was killed for its memory in it
)

# Classes of fault that end an instance (Fault.kind), and whether another attempt may help.
FATAL_FAULTS = {
    "model_not_found": False,  # no entry, or no class of the right shape
    "model_load_failed": False,  # load() raised or returned false
    "missing_module": False,  # an import failed
    "input_changed": False,  # an input object is not the one that was listed
    "format_mismatch": False,  # the input cannot be read in this format at all
    "input_unreadable": True,
    "staging_failed": True,  # a part could not be written (disk full, storage refuses)
    "out_of_memory": False,  # the model does not fit, with a mini-batch of one record
    "contract_version": False,
    "internal": True,
}


@dataclass(frozen=True)
class Access:
    """How an instance reaches one object, and nothing else: a path, or a URL that was signed for it.

    kind: "path" (`location` is an absolute path) or "url" (`location` is good for one method on one object).
    """

    kind: str
    location: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InputObject:
    """One object of the input listing, as it was when the run was planned.

    ordinal: place in the listing, from 0. name: path below the input folder. etag: opaque; for "path" access
    it is `local_etag(os.stat(path))`, otherwise the store's own, to be sent as If-Match.
    """

    ordinal: int
    name: str
    size: int
    etag: str
    get: Access


def local_etag(size: int, mtime_ns: int, inode: int) -> str:
    """The etag of a local file: changes with any rewrite that the file system can tell."""
    return f"{inode:x}-{mtime_ns:x}-{size:x}"


@dataclass(frozen=True, order=True)
class Cursor:
    """A place inside a split: the object's index within it, and what was consumed of that object.

    offset counts bytes from the split's start for formats of lines, rows for Parquet; it is 0 for files that
    are records themselves. Cursors grow with the work done; (0, 0) is the beginning.
    """

    object: int = 0
    offset: int = 0


@dataclass(frozen=True)
class PartTarget:
    """The one object that a lease may write: its name (unique per lease) and how to put it.

    For "path" access: write a temporary beside it, then rename onto `put.location`.
    """

    name: str
    put: Access


@dataclass(frozen=True)
class Lease:
    """The right to compute a split, from `cursor` on, until it expires or is taken over (the fence tells).

    One object and 0 <= start < stop: the byte range [start, stop) of it. A line belongs to the range that its
    first byte lies in; a Parquet row group to the range that its middle lies in, but the rows of a group of up to 1 MiB
    to ranges of their own, as if each were so many bytes of it (`codec.parquet`). stop == -1: whole objects.
    """

    split: int
    fence: int
    objects: list[InputObject]
    start: int
    stop: int
    cursor: Cursor
    part: PartTarget


@dataclass(frozen=True)
class Counts:
    """An account of records: inputs == ok + failed + skipped. Skipped are blank lines."""

    inputs: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.inputs + other.inputs,
            self.ok + other.ok,
            self.failed + other.failed,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True)
class Commit:
    """What an instance asks to be made a result: one part, which covers [begin, end) of its lease's split.

    The part is `data`, then `errors` (JSON lines of ErrorRecord), then `index` (JSON lines of Segment; only if the
    lease has more than one object and they are not whole-file records: also where a single object of several has
    records). sha256 is of all of it, in hex. A part of no bytes at all is not written. end: (number of objects, 0) when
    done. done: nothing of the split is left; otherwise the coordinator leases the rest anew in its answer.
    """

    split: int
    fence: int
    part: str
    begin: Cursor
    end: Cursor
    done: bool
    data_bytes: int
    errors_bytes: int
    index_bytes: int
    sha256: str
    counts: Counts
    seconds: float = 0.0


@dataclass(frozen=True)
class Segment:
    """One line of a part's index: the bytes and records of one object (its index within the split)."""

    object: int
    data_bytes: int
    counts: Counts


@dataclass(frozen=True)
class Frame:
    """The first line of a frame (JSON), before its payload of `bytes` bytes. Data of csv, parquet and file is frames:
    its parts cannot simply follow each other, and the publisher makes results of them.

    rows: how many the payload has. columns: their names (csv; for parquet the payload is an Arrow stream and says them,
    for no column at all there is no payload); the first `carried` of them are of the input. file: a frame holds the
    bytes of one record's file, and one of 0 rows is a record that failed.
    """

    rows: int
    bytes: int
    columns: list[str] = field(default_factory=list)
    carried: int = 0


@dataclass(frozen=True)
class ErrorRecord:
    """One line of a part's errors. `position` counts records from 0 inside the part's own piece of the object, skipped
    blank lines included: the object's row is the sum of `counts.inputs` of the parts before it, plus position.

    object: index within the split. The publisher turns position into the line or row of the whole object.
    input: the record itself as text, capped (input_truncated); base64 when it is not UTF-8 (input_base64).
    """

    object: int
    position: int
    fault: str
    type: str
    message: str
    traceback: str
    attempts: int
    input: Optional[str]
    input_truncated: bool = False
    input_base64: bool = False
    fingerprint: str = ""


@dataclass(frozen=True)
class Fault:
    """Why an instance cannot go on: kind is a key of FATAL_FAULTS; evidence is the line that shows it."""

    kind: str
    message: str
    evidence: str = ""
    traceback: str = ""


@dataclass(frozen=True)
class Held:
    """A lease that the instance still works on; naming it renews it."""

    split: int
    fence: int


@dataclass(frozen=True)
class Report:
    """What an instance says. Sent at least every `Orders.report_every_s`; an unanswered one is sent again as it was.

    state: "starting" | "loading" | "running" | "stopping". "running" means that load() has returned.
    want: how many more leases it could start on now or prefetch.
    pending: counts of work not yet committed (for progress only).
    seconds: time spent so far by phase ("environment", "load", "predict", "read", "write").
    tuning: the choices made (mini-batch size, processes, threads) and why, for people to read; "machine" names the kind
    of machine that they were made on, "keep" has those that were measured: both together are a hint to the next run.
    waiting: what keeps it from getting on for now (a storage that does not answer, a full disk), for people; or "".
    fault: the instance ends after this report.
    """

    version: int
    instance: str
    state: str
    commits: list[Commit] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    want: int = 0
    pending: Counts = Counts()
    memory_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    waiting: str = ""
    fault: Optional[Fault] = None


@dataclass(frozen=True)
class Orders:
    """What a coordinator answers.

    directive: "work"; "wait" (nothing to lease now, something may come back); "finish" (nothing is left: exit with
    EXIT_DONE); "stop" (commit nothing more than what was just accepted, exit with EXIT_STOPPED);
    "flush" (commit what is computed, also in the middle of a split, then report; "stop" follows).
    leases: new ones, and for each accepted commit with done=False the rest of its split under a new fence.
    refused: fences that are no longer valid: drop their work.
    token: replaces the bearer token of the next reports.
    """

    directive: str
    leases: list[Lease] = field(default_factory=list)
    refused: list[Held] = field(default_factory=list)
    report_every_s: float = 2.0
    token: Optional[str] = None


@dataclass(frozen=True)
class InputFormat:
    """How records lie in an object; everything is resolved before an instance sees it (no "auto").

    type: "jsonl" | "csv" | "parquet" | "text" | "file" (each object is one record, handed over as a local path).
    compression: "none" | "gzip" | "zstd". delimiter, quote, header, encoding: csv only. columns: those that the
    model gets, None for all.
    """

    type: str
    compression: str = "none"
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"
    columns: Optional[list[str]] = None
    max_record_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class ResultFormat:
    """How predictions are written. Line n is record n's; where that failed it is `null` (in the text format: blank).

    type: "jsonl" | "csv" | "parquet" | "text" | "file" (each prediction is an object of its own: bytes, text, a path).
    form: "aligned" (the bare prediction), "joined" (the input record with the key "prediction" added),
    "named" ({"path": ..., "prediction": ...}; the default where a file is the record).
    keys: input columns that are carried into the result beside the prediction.
    layout: "per_object" | "parts" | "single".
    extension: file only: what takes the place of the input object's extension; "" adds `.out` to its name.
    """

    type: str = "jsonl"
    form: str = "aligned"
    keys: list[str] = field(default_factory=list)
    layout: str = "per_object"
    extension: str = ""


@dataclass(frozen=True)
class Channel:
    """How an instance speaks to its coordinator: kind "http" (url, token) or "fd" (an inherited socket, JSON lines).

    A url `file:PATH` is read from that file for each connection: a server on the same machine may come back elsewhere.
    """

    kind: str
    url: str = ""
    token: str = ""
    fd: int = -1


@dataclass(frozen=True)
class Pins:
    """What the user fixed instead of leaving it to be measured; None is to be measured."""

    batch_size: Optional[int] = None
    processes: Optional[int] = None
    threads: Optional[int] = None


@dataclass(frozen=True)
class Command:
    """A command of the user's own that is the model; the task file's `command` says more. run: words, for no shell.

    protocol: "lines" (records on its standard input, predictions on its standard output) or "http" (a server).
    lines: lifetime: "run", "batch" or "auto"; answer: "json", "text" or "auto". http: port: None for a free one.
    accept: None for the content type. key: of the list of records in a JSON object, None for a bare list. records:
    "many" or "one" in a request. connections: requests under way at once, None for the instance's cores.
    """

    run: list[str]
    protocol: str
    load_timeout_s: float = 600.0
    lifetime: str = "auto"
    answer: str = "auto"
    port: Optional[int] = None
    health: str = "/ping"
    predict: str = "/invocations"
    content_type: str = "application/json"
    accept: Optional[str] = None
    key: Optional[str] = None
    records: str = "many"
    connections: Optional[int] = None
    max_request_bytes: int = 6 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """All that an instance is told at its start (a JSON file, mode 0600, in its own folder).

    model, code: absolute folders, read-only. command: the user's own instead of what they hold.
    millicores, memory_bytes: what the instance may use. scratch: a folder of its own that is removed after it.
    die_with_parent: under `tidemill run`; a server's instances outlive it, and give up after orphan_after_s without
    an answer. function: the `module:function` that the task names; it wins over what the package says.
    hints: what earlier runs with this model ended with, by machine (Report.tuning says both); a place to begin from.
    """

    version: int
    task: str
    run: str
    instance: str
    channel: Channel
    model: Optional[str]
    code: Optional[str]
    command: Optional[Command]
    input: InputFormat
    result: ResultFormat
    millicores: int
    memory_bytes: int
    scratch: str
    record_timeout_s: Optional[float] = None
    commit_every_s: float = 5.0
    orphan_after_s: float = 3600.0
    die_with_parent: bool = False
    pins: Pins = Pins()
    hints: dict[str, Pins] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    function: Optional[str] = None
