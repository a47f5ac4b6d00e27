"""How a function becomes a command: the options that all share, errors as exit statuses, settings and client on
demand.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tidemill.cli.options import TASK_OPTIONS, TaskOption
from tidemill.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_REFUSED, Output
from tidemill.domain.errors import InvalidValue, TidemillError
from tidemill.settings import Loaded, load_settings

if TYPE_CHECKING:
    from tidemill.client import Client

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


class HelpfulCommand(TyperCommand):
    """A command whose help has no types: options say what they take (FILE, SIZE), flags take nothing."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class HelpfulGroup(TyperGroup):
    """The same of a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if parameter.param_type_name == "argument" or parameter.is_flag:
            parameter.display_type_rich = lambda ctx: None
    return parameters


class Call:
    """One call of a command: where it prints, the settings in force, the server it speaks to."""

    def __init__(self, out: Output, config: str | None = None, overrides: Mapping[str, object] | None = None) -> None:
        self.out = out
        self.config = config
        self._overrides = dict(overrides or {})

    @functools.cached_property
    def loaded(self) -> Loaded:
        return load_settings(Path(self.config) if self.config else None, os.environ, self._overrides)

    @functools.cached_property
    def client(self) -> Client:
        from tidemill.client import Client  # httpx and pydantic: only where a server is spoken to

        given = self.loaded.settings.client
        key = given.secret_key.get_secret_value() if given.secret_key else None
        return Client(
            given.url,
            secret_id=given.secret_id,
            secret_key=key,
            credentials=given.credentials,
            data=self.loaded.settings.data,
        )

    def close(self) -> None:
        """Lets go of the server, if it was spoken to."""
        if "client" in vars(self):
            self.client.close()

    def confirm(self, question: str, yes: bool) -> None:
        """Asks, unless `yes`. Raises InvalidValue where nobody can answer, typer.Exit where the answer is no."""
        if yes:
            return
        if self.out.json or not sys.stdin.isatty():
            raise InvalidValue(
                "is needed here, where nobody can be asked.", field="--yes", remedy="Add --yes if you mean it."
            )
        if not typer.confirm(question, err=True):
            raise typer.Exit(EXIT_REFUSED)


def guarded(out: Output, action: Callable[[], int | None]) -> int:
    """The exit status of an action; its errors are told and not thrown."""
    try:
        return action() or EXIT_OK
    except TidemillError as error:
        return out.refusal(error)
    except KeyboardInterrupt:
        out.note("Interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `tidemill … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def help_text(function: Callable[..., object]) -> str:
    r"""Its documentation. A paragraph that begins with `\b` keeps its lines, which Typer knows by a backspace."""
    return inspect.cleandoc(function.__doc__ or "").replace("\\b\n", "\b\n")


def option(name: str, kind: Any, *flags: str, default: object = None, help: str, **more: Any) -> inspect.Parameter:  # noqa: A002 - Typer's own name
    """A parameter that is not in a function's own signature."""
    annotation = Annotated[kind, typer.Option(*flags, help=help, show_default=False, **more)]
    return inspect.Parameter(name, _KEYWORD, default=default, annotation=annotation)


JSON = option("json", bool, "--json", default=False, help="One JSON document on standard output.")
QUIET = option("quiet", bool, "--quiet", "-q", default=False, help="No progress and no notes.")
CONFIG = option("config", str | None, "--config", help="Settings file. Default: ./tidemill.toml.", metavar="FILE")
DATA = option("data", str | None, "--data", help="Data folder of a server on this machine.", metavar="DIR")
URL = option("url", str | None, "--url", help="Server. Default: the one of the data folder.", metavar="URL")


def task_parameters(options: Sequence[TaskOption] = TASK_OPTIONS) -> list[inspect.Parameter]:
    """The options that describe a task, as Typer takes them."""
    found = []
    for each in options:
        kind: Any = {"set": bool, "many": list[str] | None, "pairs": list[str] | None}.get(each.kind, str | None)
        flags = [each.flag, each.short] if each.short else [each.flag]
        default = False if each.kind == "set" else None
        metavar = None if each.kind == "set" else each.metavar
        found.append(
            option(
                each.parameter,
                kind,
                *flags,
                default=default,
                help=each.help,
                metavar=metavar,
                rich_help_panel=each.panel,
            )
        )
    return found


def command(
    app: typer.Typer,
    name: str,
    *,
    server: bool = True,
    overrides: Mapping[str, str] | None = None,
    more: Sequence[inspect.Parameter] = (),
    raw: bool = False,
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Registers `function(call, …)` as a command. It returns its exit status; None is 0.

    server: whether it speaks to one. overrides: parameter → setting that it sets. more: parameters that the function
    takes by `**`. raw: it deals with its errors itself.
    """
    settings = {"data": "data", "url": "client.url"} if server else {}
    settings = {**settings, **(overrides or {})}
    common = [JSON, QUIET, CONFIG, *([URL, DATA] if server else [])]

    def register(function: Callable[..., int | None]) -> Callable[..., int | None]:
        own = [
            parameter.replace(kind=_KEYWORD)
            for parameter in list(inspect.signature(function, eval_str=True).parameters.values())[1:]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        taken = {parameter.name for parameter in own}
        parameters = [*own, *more, *(parameter for parameter in common if parameter.name not in taken)]

        def run(**given: Any) -> None:
            out = Output(json=given.pop("json"), quiet=given.pop("quiet"))
            set_to = {key: given.get(parameter) for parameter, key in settings.items()}
            call = Call(out, given.pop("config"), set_to)
            passed = {key: value for key, value in given.items() if key in taken or key not in ("data", "url")}
            with contextlib.closing(call):
                status = function(call, **passed) if raw else guarded(out, lambda: function(call, **passed))
            raise typer.Exit(status or EXIT_OK)

        run.__name__, run.__doc__ = function.__name__, help_text(function)
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, cls=HelpfulCommand)(run)
        return function

    return register
