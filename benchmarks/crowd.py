"""Fills the database of a stopped server with copies of one finished task: a million of them in seconds.

Each row of the template is copied with the ids, the name, the time and the tag of its number; the counts are made anew.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

TAGS = 100
"""Distinct values of the tag `team`."""
_NUMBER = "CAST(n AS TEXT)"


def fill(database: Path, task: str, count: int) -> None:
    """Adds `count` copies of `task`. database: the SQLite file of a server that does not run."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TEMP TABLE numbers (n INTEGER PRIMARY KEY)")
        connection.execute(
            "WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < ?) "
            "INSERT INTO numbers SELECT n FROM up",
            (count,),
        )
        clone = "'batch-' || printf('%016d', n)"
        run = f"{clone} || '-r1'"
        tags = '\'{"team":"t\' || (n % ' + str(TAGS) + ") || '\"}'"
        _copy(
            connection,
            "tasks",
            f"id = '{task}'",
            {"id": clone, "run": run, "name": f"'task-' || {_NUMBER}", "tags": tags, "output": f"output || {_NUMBER}"}
            | {name: f"{name} - 2000000 + n" for name in ("created", "updated", "started", "ended")}
            | {"idempotency_key": "NULL"},
        )
        _copy(
            connection,
            "runs",
            f"task = '{task}'",
            {"id": run, "task": clone, "plan": run, "sweep_at": "NULL"},
        )
        _copy(connection, "instances", f"task = '{task}'", {"id": f"{run} || '-0-a1'", "run": run, "task": clone})
        _copy(connection, "claims", f"task = '{task}'", {"id": "NULL", "run": run, "task": clone, "uri": "uri || n"})
        connection.execute(
            "INSERT INTO task_tags (task, key, value, account, region, actor, created) "
            f"SELECT {clone}, 'team', 't' || (n % {TAGS}), account, region, actor, created - 2000000 + n "
            f"FROM numbers, tasks WHERE id = '{task}'"
        )
        _count(connection)
    with sqlite3.connect(database) as connection:
        connection.execute("ANALYZE")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _copy(connection: sqlite3.Connection, table: str, where: str, changed: dict[str, str]) -> None:
    """Copies the one row of a table once for each number; `changed`: SQL over `n` and the row, by column."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    quoted = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join(changed.get(name, f'"{name}"') for name in columns)
    row = f"(SELECT * FROM {table} WHERE {where} LIMIT 1)"
    connection.execute(f"INSERT INTO {table} ({quoted}) SELECT {values} FROM numbers, {row}")


def _count(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM task_counts")
    connection.execute(
        "INSERT INTO task_counts (account, region, tag_key, tag_value, status, total) "
        "SELECT account, region, '', '', status, count(*) FROM tasks GROUP BY account, region, status"
    )
    connection.execute(
        "INSERT INTO task_counts (account, region, tag_key, tag_value, status, total) "
        "SELECT tasks.account, tasks.region, key, value, status, count(*) FROM task_tags JOIN tasks ON tasks.id = task "
        "GROUP BY tasks.account, tasks.region, key, value, status"
    )


def template(folder: Path) -> dict[str, object]:
    """A task over one record with the model that does nothing; its input is made below `folder`."""
    source = folder / "one-record"
    source.mkdir(parents=True, exist_ok=True)
    (source / "one.jsonl").write_text(json.dumps({"number": 1}) + "\n")
    model = Path(__file__).parent / "models" / "noop"
    return {
        "name": "template",
        "model": str(model),
        "input": f"{source}/",
        "output": f"{folder}/out/",
        "resources": {"cpu": 0.5, "memory": "128Mi"},
        "tags": {"team": "t0"},
    }
