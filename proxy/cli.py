"""The command line."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from proxy import __version__
from proxy.app import App, build
from proxy.commands import audit, keys, policy, schema
from proxy.commands.terminal import ConfigFile, err, out, refuse
from proxy.config import ConfigFault, load
from proxy.config.policies import Candidate
from proxy.engines.policyset import PolicyFault
from proxy.engines.regorus import RegorusEngine
from proxy.engines.waiting import WaitingEngine
from proxy.parts import proven
from proxy.ports import Unavailable
from proxy.workers import Supervisor, serve_one

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
app.add_typer(policy.group, name="policy")
app.add_typer(schema.group, name="schema")
app.add_typer(audit.group, name="audit")
app.add_typer(keys.group, name="keys")


def main() -> None:
    """The entry point."""
    app()


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
def serve(
    config: ConfigFile = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve until SIGTERM or Ctrl-C; open streams are given limits.drain_s seconds to end."""
    _log(log_level)
    built = _built(config)
    settings = built.settings
    serving = built.run() if settings.workers == 1 else Supervisor(settings, log_level).run()
    del built  # which workers build for themselves
    try:
        _run(serving)
    except ConfigFault as exc:
        refuse("Callgate cannot start", exc.faults)


@app.command(hidden=True)
def worker(number: int, log_level: str = "info") -> None:
    """One of the processes that `serve` starts with `workers: N`; standard input says what to serve."""
    _log(log_level, f"[{number}] ")
    try:
        _run(serve_one())
    except (ConfigFault, Unavailable) as exc:
        refuse(f"Worker {number} cannot start", exc.faults if isinstance(exc, ConfigFault) else [exc])


@app.command()
def check(config: ConfigFile = None) -> None:
    """Check config, policies and tools without serving; name every fault and exit 1 if there is one."""
    built = _built(config)
    settings = built.settings
    try:
        policies = _run(built.read_policies())
    except PolicyFault as exc:
        refuse("The policies cannot be served", exc.faults)
    table = Table(title="Callgate would serve", title_justify="left", show_header=False, box=None)
    table.add_row("listen", f"http://{settings.listen.host}:{settings.listen.port}/v1")
    table.add_row("admin", f"http://{settings.admin.host}:{settings.admin.port}")
    for upstream in settings.upstreams:
        table.add_row("upstream", f"{upstream.name}: {upstream.base_url} for {', '.join(upstream.models)}")
    table.add_row("identity", " > ".join(way.kind for way in settings.identity))
    table.add_row("policies", _policies_line(built))
    for label, revision in policies.labels if policies is not None else ():
        table.add_row("bundle", f"{label}: {revision[:100] or 'without a revision of its own'}")
    if isinstance(built.engine, RegorusEngine | WaitingEngine):
        for package, why in sorted(built.engine.asked_aside.items()):
            table.add_row("evaluated aside", escape(f"{package}: {why}"))
    if settings.policies.candidate is not None:
        table.add_row("candidate", _candidate_line(settings.policies.candidate))
    table.add_row("tools", _tools_line(built))
    table.add_row("guards", " > ".join(built.guard_names))
    table.add_row("config digest", settings.digest[:16])
    out.print(table)


def _tools_line(built: App) -> str:
    tools, specs = built.settings.tools, built.registry.specs.values()
    shown = sum(tools.override if spec.override is None else spec.override for spec in specs)
    said = [f"{len(specs)} registered", f"others: {tools.unregistered}"]
    said += [f"{shown} shown in the registry's words"] if shown else []
    if tools.pin != "off":
        said.append(f"{sum(bool(spec.pin) for spec in specs)} pinned ({tools.pin})")
    return ", ".join(said)


def _policies_line(built: App) -> str:
    policies = built.settings.policies
    if policies.engine == "opa":
        return f"those of the OPA server at {policies.opa.url}"
    sources = [*map(str, policies.paths), *(["the bundles below"] if policies.bundles else [])]
    where = ", ".join(sources) or "the starter policies"
    return f"{where} (revision {built.engine.revision[:16]})"


def _candidate_line(tried: Candidate) -> str:
    try:
        revision = _run(proven(tried))
    except PolicyFault as exc:
        refuse("The candidate policies have faults", exc.faults)
    return f"{', '.join(map(str, tried.paths))} (revision {revision[:16]}), asked and never obeyed"


@app.command()
def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the demo's audit log in this folder.")] = None,
) -> None:
    """See Callgate at work: every situation, driven by the official openai client, with its trail."""
    try:
        from proxy.demo import run_demo
    except ModuleNotFoundError as exc:
        refuse("The demo needs the official openai client", [f"{exc.name}: pip install 'callgate[demo]'"])
    _log("error")
    if not _run(run_demo(out, keep)):
        raise typer.Exit(1)


def _built(config: Path | None) -> App:
    try:
        return build(load(config))
    except ConfigFault as exc:
        refuse("The configuration has faults", exc.faults)


def _log(level: str, prefix: str = "") -> None:
    handler = RichHandler(console=err, show_path=False, rich_tracebacks=False, log_time_format="[%X]")
    logging.basicConfig(level=level.upper(), format=f"{prefix}%(message)s", handlers=[handler])


def _run(coroutine: Any) -> Any:
    """Run on uvloop where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)
