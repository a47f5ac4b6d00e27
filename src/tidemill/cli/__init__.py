"""The `tidemill` command.

`tidemill run` is read by `options.parse_run` where it can be, so that it starts without Typer; everything else, and
every help text, is Typer's.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script. Exit status: 0 succeeded, 1 the task failed or was stopped, 2 the request was refused."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["run"] and not any(name.endswith("_COMPLETE") for name in os.environ):
        from tidemill.cli.options import parse_run

        request = parse_run(arguments[1:])
        if request is not None:
            # Started before this process imports what it needs: both take their time at once.
            from tidemill.engines.children import Children

            children = Children()
            try:
                children.start_ahead()
                from tidemill.cli.run import run_command

                status = run_command(request, children)
            finally:
                children.close()
            sys.exit(status)
    from tidemill.cli.app import app

    app(prog_name="tidemill")
