"""Names inside an output folder, and which objects below an input folder are no inputs.

Staging lives under `_tidemill/<task>/`; everything else in the folder is a result.
"""

from __future__ import annotations

STAGING = "_tidemill/"
CLAIM = "_tidemill/claim.json"
ERRORS = "errors.jsonl"
INPUTS = "_inputs.jsonl"
"""The input as it was planned: {"name", "size", "etag"} a line. Its sha256 is the receipt's `input.listing_sha256`."""
DELETED = "_deleted.jsonl"
"""Of a task that computed only what was new: the objects of the earlier listing that are gone, as in `INPUTS`."""
RECEIPT = "receipt.json"
MARKER = "_SUCCESS"

_EXTENSIONS = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet", "text": ".txt", "file": ""}


def task_folder(task: str) -> str:
    return f"{STAGING}{task}/"


def listing_name(task: str) -> str:
    return f"{task_folder(task)}listing.jsonl"


def whole_listing_name(task: str) -> str:
    """The whole input, where the listing has only what is new."""
    return f"{task_folder(task)}inputs.jsonl"


def gone_name(task: str) -> str:
    return f"{task_folder(task)}deleted.jsonl"


def part_name(split: int, fence: int, nonce: str) -> str:
    """The name of the part that one lease may write, below `parts_folder`. Unique, so that a retry does no harm."""
    return f"{split:08d}.{fence}.{nonce}"


def parts_folder(task: str) -> str:
    return f"{task_folder(task)}parts/"


def unit_manifest(task: str, unit: int) -> str:
    """Where the publisher notes the results of one unit: {"name", "size", "sha256", "counts"} a line."""
    return f"{task_folder(task)}units/{unit:08d}.jsonl"


def unit_errors(task: str, unit: int) -> str:
    return f"{task_folder(task)}units/{unit:08d}.errors.jsonl"


def result_for_object(input_name: str, result_type: str, extension: str = "") -> str:
    """One result object per input object: the input's whole name and more, so that no two inputs share one.

    extension: takes the place of the input's own instead; two inputs may share a result then.
    """
    if extension:
        return result_stem(input_name) + extension
    return f"{input_name}.out{_EXTENSIONS[result_type]}"


def result_stem(input_name: str) -> str:
    """The name without its last extension; `.profile` and `a/b` have none."""
    folder, slash, name = input_name.rpartition("/")
    return f"{folder}{slash}{name[: name.rfind('.')] if name.rfind('.') > 0 else name}"


def result_for_part(number: int, result_type: str) -> str:
    return f"part-{number:05d}{_EXTENSIONS[result_type]}"


def result_single(result_type: str) -> str:
    return f"predictions{_EXTENSIONS[result_type]}"


def is_input(name: str) -> bool:
    """Whether an object below the input folder is data: not a folder's marker, not a completion marker, not staging.

    name: path below the folder. Hidden and underscore names are left out as Spark, Hive and others do.
    """
    if not name or name.endswith("/"):
        return False
    return not any(part.startswith(("_", ".")) for part in name.split("/"))
