"""`callgate policy eval`: one decision, and the rules that made it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import jsonschema_rs
import orjson
import typer
from rich.text import Text

from proxy import parts
from proxy.commands.policy_sources import Format, Sources, plain, policy_set, print_json, ready
from proxy.commands.terminal import ConfigFile, err, out, refuse
from proxy.engines.rego.trace import Explained, Explainer, Step
from proxy.model import Fault, loads
from proxy.ports import Unavailable

# By package, the part of schemas/policy-input.schema.json that says what it is told.
_INPUTS = {
    "callgate.call": "call_input",
    "callgate.request": "request_input",
    "callgate.tools": "tools_input",
    "callgate.result": "result_input",
}
_MAX_FAULTS = 20
_STYLES = {"allow": "green", "deny": "bold red"}


def evaluate(
    input: Annotated[
        str, typer.Option("--input", "-i", help="A file with the policy input as JSON; - is standard input.")
    ],
    paths: Sources = None,
    config: ConfigFile = None,
    package: Annotated[str, typer.Option("--package", "-p", help="Whose decision.")] = "callgate.call",
    explain: Annotated[
        bool,
        typer.Option("--explain", "-e", help="Show also the rules that were tried, and where they stopped."),
    ] = False,
    format: Format = "text",
) -> None:
    """Ask policies for one decision, and show which rules made it."""
    document = _document(input, package)
    policies = policy_set(paths, config)
    explainer = ready(lambda: Explainer(policies))
    if package not in explainer.packages:
        known = ", ".join(sorted(explainer.packages)) or "none does"
        refuse(
            "Nothing was decided", [f"no rule {package}.decision is defined (these packages decide: {known})"]
        )
    try:
        explained = explainer.explain(package, document)
    except Unavailable as exc:
        refuse("Nothing was decided, which denies the call", [exc])
    if format == "json":
        print_json(_as_json(explained, explain))
    else:
        _print(explained, explain)
    if explained.decision is None:
        err.print("The decision is undefined, which denies.")
        raise typer.Exit(1)


def _document(source: str, package: str) -> dict[str, Any]:
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        document = loads(raw.decode())
    except OSError as exc:
        refuse("The input cannot be read", [f"{source}: {exc.strerror or exc}"])
    except (Fault, UnicodeDecodeError) as exc:
        refuse("The input is not JSON", [f"{source}: {exc}"])
    if not isinstance(document, dict):
        refuse("The input is not a policy input", [f"{source}: it has to be an object"])
    if definition := _INPUTS.get(package):
        faults = list(_faults(document, definition))
        more = [f"and {len(faults) - _MAX_FAULTS} more"] if len(faults) > _MAX_FAULTS else []
        if faults:
            refuse(f"The input is not what {package} is told", [*faults[:_MAX_FAULTS], *more])
    return document


def _faults(document: dict[str, Any], definition: str) -> Iterator[str]:
    schema = orjson.loads((parts.packaged("schemas") / "policy-input.schema.json").read_bytes())
    schema["$ref"] = f"#/$defs/{definition}"
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    errors = list(validator.iter_errors(document))
    for error in errors:
        # Said of every member, once another is wrong.
        if len(errors) > 1 and error.message.startswith("Unevaluated properties"):
            continue
        where = "/".join(("input", *map(str, error.instance_path)))
        yield f"{where}: {plain(error.message)}"


def _as_json(explained: Explained, explain: bool) -> dict[str, Any]:
    found = {
        "decision": explained.decision,
        "fired": [_step(step) for step in explained.fired],
        "printed": explained.printed,
    }
    return found | ({"stopped": [_step(step) for step in explained.stopped]} if explain else {})


def _step(step: Step) -> dict[str, Any]:
    file, _, line = step.place.rpartition(":")
    return {**asdict(step), "place": {"file": file, "row": int(line)}}


def _print(explained: Explained, explain: bool) -> None:
    decision = explained.decision
    effect = decision.get("effect") if isinstance(decision, dict) else None
    if isinstance(effect, str):
        out.print(Text(plain(effect), _STYLES.get(effect, "bold yellow")), soft_wrap=True)
        for reason in decision.get("reasons", ()):
            out.print(Text(f"  {plain(reason, 1000)}"), soft_wrap=True)
        rest = {key: value for key, value in decision.items() if key not in ("effect", "reasons") and value}
        for key, value in rest.items():
            out.print(Text(f"  {plain(key)}: {plain(value, 1000)}"), soft_wrap=True)
    else:
        out.print(Text("undefined" if decision is None else plain(decision, 4000)), soft_wrap=True)
    for printed in explained.printed:
        out.print(Text(f"  printed: {plain(printed, 1000)}"), soft_wrap=True)
    _print_steps("Rules that applied", explained.fired)
    if explain:
        _print_steps("Rules that were tried, and where each stopped", explained.stopped)


def _print_steps(title: str, steps: Sequence[Step]) -> None:
    if not steps:
        return
    out.print(Text(f"\n{title}", "bold"))
    wide, named = max(len(step.place) for step in steps), max(len(step.rule) for step in steps)
    for step in steps:
        line = Text.assemble(
            f"  {step.place:<{wide}}  ", (f"{step.rule:<{named}}", "cyan"), f"  {plain(step.text)}"
        )
        out.print(line, soft_wrap=True)
        for value in step.values:
            out.print(Text(f"  {'':<{wide}}    → {plain(value)}", "italic"), soft_wrap=True)
