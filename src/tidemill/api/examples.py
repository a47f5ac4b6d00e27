"""One example of every operation, for OpenAPI and the reference. A test holds them to the models, and each operation
to one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_TASK = "batch-01hr8zv3kq7m2xdp"
_RUN = f"{_TASK}-r1"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_AT = "2026-03-02T09:00:00Z"
_LATER = "2026-03-02T09:00:41Z"
_COUNTS = {"inputs": 20000, "ok": 19997, "failed": 3, "skipped": 0}
_SECONDS = {"queue": 0.1, "environment": 0.0, "start": 0.3, "load": 0.8, "predict": 38.9, "publish": 0.4, "total": 40.5}


@dataclass(frozen=True)
class Example:
    """parameters: by their names. request, response: bodies (JSON, or text where the body is none)."""

    parameters: dict[str, Any] = field(default_factory=dict)
    request: Any = None
    response: Any = None


_SPEC = {
    "name": "churn-march",
    "model": "churn@2",
    "input": {"path": "cos://data/march/"},
    "output": {"path": "cos://data/scores/march/"},
    "resources": {"cpu": "2000m", "memory": 4294967296},
    "instances": 2,
    "tolerance": 0.01,
    "tags": {"team": "growth"},
}
_SUMMARY = {
    "id": _TASK,
    "name": "churn-march",
    "region": "local",
    "status": "SUCCEED",
    "reason": "finished_with_failed_records",
    "explanation": "Finished, but some records failed. See errors.jsonl in the output folder.",
    "warning": "3 records of 20,000 failed; errors.jsonl in the output folder says which and why.",
    "model": "churn@2",
    "output": "cos://data/scores/march/",
    "instances": 2,
    "priority": 0,
    "counts": _COUNTS,
    "tags": {"team": "growth"},
    "created_at": _AT,
    "updated_at": _LATER,
    "started_at": _AT,
    "ended_at": _LATER,
}
_RUN_VIEW = {
    "id": _RUN,
    "number": 1,
    "status": "SUCCEED",
    "reason": "finished_with_failed_records",
    "explanation": _SUMMARY["explanation"],
    "instances": 2,
    "cpu_millicores": 2000,
    "memory_bytes": 4294967296,
    "created_at": _AT,
    "started_at": _AT,
    "running_at": _AT,
    "ended_at": _LATER,
    "seconds": _SECONDS,
}
_TASK_VIEW = {
    **_SUMMARY,
    "description": "Scores for the March campaign.",
    "spec": _SPEC,
    "model_kind": "service",
    "run": _RUN_VIEW,
    "runs": 1,
    "note": "The input runs whole in a single process: gzip cannot be cut.",
    "model_version": "mv-01hr8zt1c05n9k2e",
    "model_digest": _SHA,
    "seconds": _SECONDS,
    "tuning": {"batch_size": 1024, "processes": 2, "threads": 1},
    "created_by": "root",
}
_NEW_RUN = {
    "id": _RUN,
    "number": 1,
    "status": "INIT",
    "instances": 2,
    "created_at": _AT,
}
_NEW = {
    **_TASK_VIEW,
    "status": "INIT",
    "reason": "",
    "explanation": "",
    "warning": None,
    "counts": {"inputs": 0, "ok": 0, "failed": 0, "skipped": 0},
    "updated_at": _AT,
    "started_at": None,
    "ended_at": None,
    "run": _NEW_RUN,
    "seconds": {
        "queue": 0.0,
        "environment": 0.0,
        "start": 0.0,
        "load": 0.0,
        "predict": 0.0,
        "publish": 0.0,
        "total": 0.0,
    },
    "tuning": {},
}
_PROGRESS = {
    "task": _TASK,
    "run": _RUN,
    "status": "RUNNING",
    "phase": "predicting",
    "counts": {"inputs": 12000, "ok": 11998, "failed": 2, "skipped": 0},
    "pending": {"inputs": 400, "ok": 400, "failed": 0, "skipped": 0},
    "splits_total": 64,
    "splits_done": 38,
    "bytes_total": 4100000,
    "bytes_done": 2460000,
    "records_per_s": 514.2,
    "eta_s": 15.6,
    "instances": 2,
    "instances_running": 2,
    "seconds": {**_SECONDS, "predict": 23.3, "publish": 0.0, "total": 24.5},
}
_EVENT = {
    "id": 118,
    "at": _AT,
    "kind": "run",
    "subject": _RUN,
    "type": "Normal",
    "name": "run.status",
    "message": "The run is RUNNING.",
    "status": "RUNNING",
}
_ERROR = {
    "object": "part-3.jsonl",
    "line": 4711,
    "fault": "model_error",
    "type": "ValueError",
    "message": "could not convert string to float: 'n/a'",
    "traceback": "Traceback (most recent call last):\n  …\nValueError: could not convert string to float: 'n/a'\n",
    "attempts": 1,
    "input": '{"age": "n/a", "plan": "basic"}',
    "fingerprint": "5c2f0a9d",
}
_MODEL = {
    "id": "m-01hr8zs9x3w4t6ya",
    "name": "churn",
    "region": "local",
    "description": "Who leaves within a month.",
    "labels": {"team": "growth"},
    "versions": 2,
    "latest": 2,
    "created_at": _AT,
    "updated_at": _LATER,
    "created_by": "root",
}
_VERSION = {
    "id": "mv-01hr8zt1c05n9k2e",
    "model": "churn",
    "number": 2,
    "reference": "churn@2",
    "status": "READY",
    "description": "Trained on February.",
    "package": _SHA,
    "size_bytes": 120431,
    "files": 2,
    "format": "service",
    "entry": "batch/model_service.py:Churn",
    "requirements": False,
    "created_at": _AT,
    "created_by": "root",
}
_FILES = [
    {"path": "batch/model_service.py", "sha256": _SHA, "size": 431, "executable": False},
    {"path": "model/churn.txt", "sha256": _SHA, "size": 120000, "executable": False},
]
_PACKAGE = {"digest": _SHA, "size_bytes": 120431, "files": _FILES}
_OBJECT = {
    "name": "part-1.jsonl",
    "location": "cos://data/march/part-1.jsonl",
    "size_bytes": 2048,
    "etag": "1a2b-3c4d-800",
    "modified_at": _AT,
}
_RESULT = {
    "name": "part-1.jsonl.out.jsonl",
    "location": "cos://data/scores/march/part-1.jsonl.out.jsonl",
    "kind": "result",
    "size_bytes": 80211,
    "sha256": _SHA,
    "counts": {"inputs": 5000, "ok": 4999, "failed": 1, "skipped": 0},
}


def _page(*items: Any, total: int | None = None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": None, "total": total}


_ONE_TASK = {"task": _TASK}
_NAMED = {"name": "churn"}
_ONE_VERSION = {"name": "churn", "version": "2"}
_EVENT_STREAM = "id: 118\nevent: progress\ndata: {…}\n\nid: 131\nevent: end\ndata: {…}\n\n"

EXAMPLES: dict[str, Example] = {
    "create_task": Example({"Idempotency-Key": "churn-2026-03"}, _SPEC, _NEW),
    "list_tasks": Example({"status": ["SUCCEED"], "tag": ["team:growth"], "limit": 20}, None, _page(_SUMMARY, total=1)),
    "get_task": Example(_ONE_TASK, None, _TASK_VIEW),
    "delete_task": Example(
        _ONE_TASK,
        None,
        {
            "id": _TASK,
            "removed": ["task churn-march", "its history"],
            "kept": ["the results in cos://data/scores/march/"],
        },
    ),
    "stop_task": Example(_ONE_TASK, None, {**_NEW, "status": "RUNNING", "started_at": _AT}),
    "resume_task": Example(_ONE_TASK, {"instances": 4, "tolerance": "5%"}, {**_NEW, "runs": 2}),
    "get_progress": Example(_ONE_TASK, None, _PROGRESS),
    "watch_task": Example(_ONE_TASK, None, _EVENT_STREAM),
    "list_runs": Example(_ONE_TASK, None, _page(_RUN_VIEW, total=1)),
    "list_instances": Example(
        _ONE_TASK,
        None,
        _page(
            {
                "id": f"{_RUN}-0-a1",
                "run": _RUN,
                "index": 0,
                "attempt": 1,
                "status": "RUNNING",
                "memory_bytes": 184549376,
                "created_at": _AT,
                "running_at": _AT,
                "reported_at": _LATER,
            },
            total=1,
        ),
    ),
    "list_events": Example({**_ONE_TASK, "after": 117}, None, _page(_EVENT)),
    "get_logs": Example(
        _ONE_TASK,
        None,
        {"instance": f"{_RUN}-0-a1", "offset": 0, "next_offset": 19, "text": "loaded 42 features\n", "ended": False},
    ),
    "list_results": Example(_ONE_TASK, None, _page(_RESULT)),
    "preview_result": Example(
        {**_ONE_TASK, "lines": 2}, None, {"name": _RESULT["name"], "lines": ["0.12", "0.87"], "truncated": True}
    ),
    "download_result": Example({**_ONE_TASK, "name": _RESULT["name"]}, None, "0.12\n0.87\n"),
    "list_errors": Example(_ONE_TASK, None, _page(_ERROR, total=3)),
    "group_errors": Example(
        _ONE_TASK,
        None,
        _page(
            {
                "fingerprint": "5c2f0a9d",
                "fault": "model_error",
                "type": "ValueError",
                "message": _ERROR["message"],
                "count": 3,
                "example": _ERROR,
            },
            total=1,
        ),
    ),
    "get_receipt": Example(
        _ONE_TASK, None, {"version": 1, "task": _TASK, "run": _RUN, "name": "churn-march", "counts": _COUNTS}
    ),
    "list_models": Example({"name_contains": "chu"}, None, _page(_MODEL, total=1)),
    "get_model": Example(_NAMED, None, _MODEL),
    "change_model": Example(_NAMED, {"description": "Who leaves within a month."}, _MODEL),
    "delete_model": Example(_NAMED, None, {"id": _MODEL["id"], "removed": ["model churn", "version churn@2"]}),
    "list_versions": Example(_NAMED, None, _page(_VERSION, total=2)),
    "create_version": Example(_NAMED, {"package": _SHA, "description": "Trained on February."}, _VERSION),
    "get_version": Example(_ONE_VERSION, None, _VERSION),
    "list_version_files": Example(_ONE_VERSION, None, _PACKAGE),
    "delete_version": Example(_ONE_VERSION, None, {"id": _VERSION["id"], "removed": ["version churn@2"]}),
    "find_missing_blobs": Example({}, {"sha256": [_SHA]}, {"missing": [_SHA]}),
    "find_blob": Example({"sha256": _SHA}),
    "upload_blob": Example({"sha256": _SHA}, "test", {"sha256": _SHA, "size_bytes": 4}),
    "create_package": Example({}, {"files": _FILES}, _PACKAGE),
    "get_package": Example({"digest": _SHA}, None, _PACKAGE),
    "list_objects": Example({"path": "cos://data/march/"}, None, _page(_OBJECT)),
    "delete_objects": Example(
        {"path": "cos://data/march/", "recursive": True},
        None,
        {"id": "cos://data/march/", "removed": ["all below cos://data/march/"]},
    ),
    "download_object": Example({"path": _OBJECT["location"]}, None, '{"age": 41, "plan": "basic"}\n'),
    "upload_object": Example({"path": _OBJECT["location"]}, '{"age": 41, "plan": "basic"}\n', _OBJECT),
    "get_health": Example({}, None, {"status": "ok"}),
    "get_readiness": Example({}, None, {"status": "ok"}),
    "get_metrics": Example({}, None, '# TYPE tidemill_tasks gauge\ntidemill_tasks{status="RUNNING"} 1.0\n'),
    "get_server": Example(
        {},
        None,
        {
            "version": "0.1.0",
            "region": "local",
            "regions": ["local"],
            "engine": "process",
            "capacity_millicores": 8000,
            "capacity_memory_bytes": 17179869184,
            "buckets": {"local": ["data"]},
            "receipt_key": "hG8m3K1mO5o9l0sVj3v0Jr2dQ0N9cY0lGq3o8b1f2XU=",
        },
    ),
}
