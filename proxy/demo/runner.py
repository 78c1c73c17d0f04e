"""Runs the situations and shows each with its decision trail."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openai
from openai import AsyncOpenAI
from rich.console import Console
from rich.padding import Padding
from rich.progress import track
from rich.table import Table
from rich.text import Text

from proxy.app import App, build
from proxy.config import Settings
from proxy.demo.situations import SITUATIONS, Seen, Situation
from proxy.model import dumps, loads
from proxy.parts import packaged
from proxy.scripted import ScriptedProvider, load_scripts
from proxy.tools import Registry

_RESULTS = {
    "get_user": {"user_id": 42, "name": "Ada", "status": "active"},
    "search_orders": {"orders": [{"order_id": "ORD-100231", "total": 20}]},
    "deploy_service": {"deployed": True},
    "get_service_status": {"service": "checkout", "status": "up"},
    "delete_user": {"deleted": 42},
}
_MAX_STEPS = 10
_TABLE_COLUMNS = 120
_COLOURS = {
    "Allow": "green",
    "Answer": "cyan",
    "Confirm": "magenta",
    "Repair": "yellow",
    "Reask": "yellow",
    "Deny": "red",
    "Break": "red",
}


async def run_demo(out: Console, keep: Path | None = None) -> bool:
    """Show every situation; False when one of them did not do what it says."""
    with tempfile.TemporaryDirectory(prefix="callgate-demo-") as scratch:
        folder = keep or Path(scratch)
        async with ScriptedProvider(load_scripts(Path(__file__).with_name("script.yaml"))) as provider:
            callgate = build(_settings(provider.url, folder))
            await callgate.start()
            try:
                shown = [
                    await _play(callgate, situation)
                    for situation in track(SITUATIONS, "Playing", console=out, transient=True)
                ]
            finally:
                await callgate.stop()
        _take_decisions(folder, shown)
    rows = [
        (situation, seen, situation.holds(seen))
        for situation, (_, seen) in zip(SITUATIONS, shown, strict=True)
    ]
    _show(out, rows)
    return all(held for _, _, held in rows)


def _settings(provider: str, folder: Path) -> Settings:
    """The defaults, but for ports of its own, the scripted provider, and roles said by a header."""
    return Settings.model_validate(
        {
            "listen": {"port": 0},
            "admin": {"port": 0},
            "upstreams": [{"name": "scripted", "base_url": provider}],
            "identity": [{"kind": "header", "id": "x-user", "roles": "x-roles", "trusted": ["127.0.0.0/8"]}],
            "tools": {"paths": [str(packaged("schemas/tools"))]},
            "guards": {"limits": {"tools": {"get_service_status": {"per_minute": 1}}}},
            "audit": {"sinks": [{"kind": "jsonl", "path": str(folder)}]},
        }
    )


async def _play(callgate: App, situation: Situation) -> tuple[list[str], Seen]:
    """Drive one conversation as an application would; returns its trace ids too."""
    seen, traces = Seen(), []
    headers = {"x-user": f"a-{situation.role}", "x-roles": situation.role}
    messages: list[Any] = [{"role": "user", "content": situation.prompt}]
    async with AsyncOpenAI(
        base_url=callgate.url, api_key="demo", max_retries=0, default_headers=headers
    ) as client:
        replies = list(situation.replies)
        for _ in range(_MAX_STEPS):
            try:
                trace, message = await _ask(client, situation, messages, seen)
            except openai.APIError as exc:
                seen.error = exc.message
                break
            traces.append(trace)
            seen.texts += [message.content.strip()] if message.content else []
            messages.append(message.model_dump(exclude_none=True))
            messages += [_run(call, seen) for call in message.tool_calls or []]
            if not message.tool_calls:
                if not replies:
                    break
                messages.append({"role": "user", "content": _reply(replies.pop(0), message.content)})
    return traces, seen


async def _ask(client: AsyncOpenAI, situation: Situation, messages: list[Any], seen: Seen) -> tuple[str, Any]:
    request: dict[str, Any] = {
        "model": situation.model,
        "messages": messages,
        "tools": _tools(situation.tools),
    }
    if not situation.stream:
        raw = await client.chat.completions.with_raw_response.create(**request)
        return raw.headers["x-callgate-trace-id"], raw.parse().choices[0].message
    async with client.chat.completions.stream(**request) as stream:
        completion = await stream.get_final_completion()
        return stream._response.headers["x-callgate-trace-id"], completion.choices[0].message


def _tools(names: Sequence[str]) -> list[dict[str, Any]]:
    """The tools as an application would offer them: here with the registry's own schemas."""
    registry = Registry.load([packaged("schemas/tools")])
    specs = [registry.specs[name] for name in names]
    return [
        {
            "type": "function",
            "function": {"name": s.name, "description": s.description, "parameters": s.parameters},
        }
        for s in specs
    ]


def _reply(words: str, question: str) -> str:
    """What the user says, with the code that the question names."""
    named = re.search(r'"approve (\w+)"', question)
    return words.format(code=named[1] if named else "")


def _run(call: Any, seen: Seen) -> dict[str, Any]:
    name = call.function.name
    seen.ran.append(f"{name}({call.function.arguments})")
    return {"role": "tool", "tool_call_id": call.id, "content": dumps(_RESULTS[name]).decode()}


def _take_decisions(folder: Path, shown: Sequence[tuple[list[str], Seen]]) -> None:
    """Read the decisions back from the audit log: what is shown is what was recorded."""
    records = [
        loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()
    ]
    for traces, seen in shown:
        seen.decisions = [r for r in records if r["kind"] == "decision" and r["trace_id"] in traces]


def _show(out: Console, rows: Sequence[tuple[Situation, Seen, bool]]) -> None:
    if out.width < _TABLE_COLUMNS:
        _list(out, rows)
    else:
        _tabulate(out, rows)
    failed = [situation.title for situation, _, held in rows if not held]
    if failed:
        out.print(f"[bold red]Not as promised:[/] {', '.join(failed)}")
    else:
        out.print("Every situation did what it says. Next: [bold]callgate serve[/], and README.md.")


def _list(out: Console, rows: Sequence[tuple[Situation, Seen, bool]]) -> None:
    """One situation below the other: a narrow terminal, or a file, would cut calls into columns of words."""
    for situation, seen, held in rows:
        title = Text(situation.title, "bold")
        title.append(", as promised" if held else ", NOT as promised", "green" if held else "bold red")
        out.print(title)
        promise = Text(f"as {situation.role}: {situation.promise}", "dim")
        saw = _saw(seen, "the application ")
        for part, indent in ((promise, 2), (_trail(seen), 4), (saw, 2)):
            out.print(Padding(part, (0, 0, 0, indent)), highlight=False)
        out.print()


def _tabulate(out: Console, rows: Sequence[tuple[Situation, Seen, bool]]) -> None:
    table = Table(
        title="Callgate between an application and its model", title_justify="left", show_lines=True
    )
    table.add_column("Situation", ratio=2)
    table.add_column("Decision trail", ratio=3, overflow="fold")
    table.add_column("What the application saw", ratio=3, overflow="fold")
    table.add_column("As promised", justify="center", min_width=8)
    for situation, seen, held in rows:
        title = Text(f"{situation.title}\n", "bold")
        title.append(f"as {situation.role}: {situation.promise}", "not bold dim")
        mark = Text("yes", "bold green") if held else Text("NO", "bold red")
        table.add_row(title, _trail(seen), _saw(seen), mark)
    out.print(table)


def _trail(seen: Seen) -> Text:
    trail = Text()
    for record in seen.decisions:
        verdict = record["verdict"]
        arguments = dumps(record["arguments_written"]).decode()
        trail.append(f"{record['gen_ai.tool.name']} {arguments}\n", "dim")
        steps = " > ".join(f"{step['guard']} {step['verdict']}" for step in record["trail"])
        trail.append(f"  {steps}\n", "")
        trail.append(f"  → {verdict} ({record['effect']})\n", _COLOURS.get(verdict, ""))
        for reason in record["reasons"]:
            trail.append(f"  {reason}\n", "italic")
    if not seen.decisions:
        trail.append("no call was complete, so none was judged", "dim")
    trail.rstrip()
    return trail


def _saw(seen: Seen, who: str = "") -> Text:
    saw = Text()
    for call in seen.ran:
        saw.append(f"{who}runs {call}\n", "cyan")
    for text in seen.texts:
        saw.append(f'{who}reads "{text}"\n')
    if seen.error:
        saw.append(f"{who}gets the error: {seen.error}", "red")
    saw.rstrip()
    return saw
