"""The command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from proxy import __version__
from proxy.commands import audit, checking, keys, policy, schema
from proxy.commands.checking import built_from
from proxy.commands.logs import log_to_stderr
from proxy.commands.terminal import ConfigFile, out, refuse, run
from proxy.config import ConfigFault
from proxy.ports import Unavailable
from proxy.workers import Supervisor, serve_one

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option(case_sensitive=False, help="How much the log says."),
]

app = typer.Typer(
    name="callgate",
    help=(
        "A policy-enforcing, OpenAI-compatible reverse proxy for LLM tool calls.\n\n"
        "Start it with `callgate serve`, point your application's base_url at http://127.0.0.1:8787/v1, and "
        "every tool call that the model makes is validated, authorised and recorded before your "
        "application runs it. `callgate demo` shows it at work without any account."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(checking.check)
app.add_typer(policy.group, name="policy")
app.add_typer(schema.group, name="schema")
app.add_typer(audit.group, name="audit")
app.add_typer(keys.group, name="keys")


def main() -> None:
    """The entry point."""
    if isinstance(sys.stdout, TextIOWrapper):
        # What models and people wrote has characters that not every terminal's encoding has.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except OSError as exc:
        if exc.filename is None:
            raise
        # Whatever a command reads or writes may be somebody else's, such as the log of a service.
        with suppress(typer.Exit):
            refuse(
                "That did not work", [f"{exc.filename}: {exc.strerror} (may you read it and write to it?)"]
            )
        sys.exit(1)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"callgate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def serve(config: ConfigFile = None, log_level: LogLevel = "info") -> None:
    """Serve until SIGTERM or Ctrl-C; open streams are given limits.drain_s seconds to end."""
    log_to_stderr(log_level)
    built = built_from(config)
    settings = built.settings
    serving = built.run() if settings.workers == 1 else Supervisor(settings, log_level).run()
    del built  # which workers build for themselves
    try:
        run(serving)
    except (ConfigFault, Unavailable) as exc:
        refuse("Callgate cannot start", _faults(exc))


@app.command(hidden=True)
def worker(number: int, log_level: LogLevel = "info") -> None:
    """One of the processes that `serve` starts with `workers: N`; standard input says what to serve."""
    log_to_stderr(log_level, f"[{number}] ")
    try:
        run(serve_one())
    except (ConfigFault, Unavailable) as exc:
        refuse(f"Worker {number} cannot start", _faults(exc))


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the demo's audit log in this folder.")] = None,
) -> None:
    """See Callgate at work: every situation, driven by the official openai client, with its trail."""
    try:
        from proxy.demo import run_demo
    except ModuleNotFoundError as exc:
        refuse("The demo needs the official openai client", [f"{exc.name}: pip install 'callgate[demo]'"])
    log_to_stderr("error")
    try:
        held = run(run_demo(out, keep))
    except (ConfigFault, Unavailable) as exc:
        refuse("The demo cannot start", _faults(exc))
    if not held:
        raise typer.Exit(1)


def _faults(exc: ConfigFault | Unavailable) -> Sequence[object]:
    return exc.faults if isinstance(exc, ConfigFault) else [exc]
