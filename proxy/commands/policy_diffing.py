"""`callgate policy diff`: what other policies would have decided of recorded calls."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from proxy.commands.policy_sources import Format, plain, policy_set, print_json, ready
from proxy.commands.terminal import err, out, refuse
from proxy.engines.rego.mentions import mentions
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.model import Fault
from proxy.replay import Example, Outcome, Replay, Side, Tally
from proxy.sinks.walking import decisions, logs

_SHOWN: tuple[Outcome, ...] = ("looser", "stricter", "altered", "reworded", "indeterminate")
_STYLES = {"looser": "bold red", "stricter": "yellow", "altered": "yellow", "indeterminate": "magenta"}
_FAILS: Mapping[str, tuple[Outcome, ...]] = {
    "looser": ("looser",),
    "stricter": ("stricter",),
    "any": ("looser", "stricter", "altered", "indeterminate"),
}
_MAX_ROWS = 40

Policies = Annotated[Path, typer.Argument(help="A folder, file or bundle of policies.", show_default=False)]
When = Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339, such as 2026-01-31T12:00:00Z.")]


def diff(
    before: Annotated[
        Path, typer.Argument(metavar="A", help="The policies as they are.", show_default=False)
    ],
    after: Annotated[
        Path, typer.Argument(metavar="B", help="The policies as they would be.", show_default=False)
    ],
    log: Annotated[Path, typer.Option("--log", help="The audit log: its folder, or one of its segments.")],
    since: When = None,
    until: When = None,
    fail_on: Annotated[
        Literal["looser", "stricter", "any"] | None,
        typer.Option("--fail-on", help="Exit 1 where a decision would become so; any: or cannot be told."),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, max=100, help="Of each change of each tool.")] = 3,
    format: Format = "text",
) -> None:
    """Judge recorded decisions under policies A and B, and show which would become stricter or looser."""
    sides = [_side(policy_set([path], None)) for path in (before, after)]
    replay = Replay(sides[0], sides[1], examples)
    try:
        tally = asyncio.run(_run(replay, log, _moment(since, "--since"), _moment(until, "--until")))
    except Fault as exc:
        refuse("The log cannot be read", [exc])
    found = {"a": sides[0].engine.revision, "b": sides[1].engine.revision} | tally.as_json()
    if format == "json":
        print_json(found)
    else:
        _print(tally, str(before), str(after), found)
    if fail_on is not None and any(tally.changes[change] for change in _FAILS[fail_on]):
        raise typer.Exit(1)


def _side(policies: PolicySet) -> Side:
    # Nobody else waits while a decision is made.
    return Side(ready(lambda: RegorusEngine(policies, timeout_s=None)), mentions(policies))


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{option}: {text!r} is not a time such as 2026-01-31T12:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _run(replay: Replay, log: Path, since: datetime | None, until: datetime | None) -> Tally:
    with _progress(log) as read:
        for record in decisions(log, read):
            moment = datetime.fromisoformat(record.time) if since or until else None
            counted = moment is None or not ((since and moment < since) or (until and moment >= until))
            await replay.take(record, counted)
    return await replay.finish()


@contextmanager
def _progress(log: Path) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    total = sum(segment.stat().st_size for one in logs(log) for segment in one)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("judging again", total=total)
        yield lambda count: progress.advance(task, count)


def _print(tally: Tally, before: str, after: str, found: Mapping[str, Any]) -> None:
    out.print(Text(f"A  {before} (revision {found['a'][:16]})"), soft_wrap=True)
    out.print(Text(f"B  {after} (revision {found['b'][:16]})"), soft_wrap=True)
    if not tally.decisions:
        out.print("No decision was recorded in that time.")
        return
    out.print(
        f"{tally.decisions} decisions from {plain(tally.first)} to {plain(tally.last)}:", soft_wrap=True
    )
    out.print(f"  {tally.changes['same']} would be the same")
    for change in _SHOWN:
        if count := tally.changes[change]:
            word = "cannot be told" if change == "indeterminate" else f"would be {change}"
            out.print(Text(f"  {count} {word}", _STYLES.get(change, "")))
    if tally.unasked:
        out.print(f"  {tally.unasked} were made before policy was asked")
    _print_effects(tally)
    _print_counts("By tool", tally.tools)
    _print_counts("By role", tally.roles)
    _print_examples(tally)
    _print_missing(tally)
    _print_unlike(tally)


def _print_effects(tally: Tally) -> None:
    rows = [(key, count) for key, count in tally.effects.most_common() if key[0] in ("looser", "stricter")]
    for (change, before, after), count in rows:
        out.print(Text(f"  {change}: {before} → {after}: {count}"), soft_wrap=True)


def _print_counts(title: str, counts: Mapping[str, Counter[Outcome]]) -> None:
    changed = {name: count for name, count in counts.items() if any(count[change] for change in _SHOWN)}
    if not changed:
        return
    out.print()
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    shown = [change for change in ("same", *_SHOWN) if any(count[change] for count in changed.values())]
    table.add_column("")
    for change in shown:
        table.add_column(change, justify="right")
    ranked = sorted(changed.items(), key=lambda item: [-item[1][change] for change in _SHOWN])
    for name, count in ranked[:_MAX_ROWS]:
        table.add_row(Text(plain(name, 60)), *(str(count[change]) for change in shown))
    out.print(table)
    if len(ranked) > _MAX_ROWS:
        out.print(f"and {len(ranked) - _MAX_ROWS} more (--format json has all)")


def _print_examples(tally: Tally) -> None:
    wanted = [example for change in _SHOWN for example in tally.examples if example.change == change]
    if wanted:
        out.print("\nExamples")
    for example in wanted[:_MAX_ROWS]:
        out.print(_example(example), soft_wrap=True)


def _example(example: Example) -> Text:
    who = f"{example.principal} ({', '.join(example.roles) or 'no role'})"
    text = Text.assemble(
        "  ",
        (example.change, _STYLES.get(example.change, "")),
        f"  {plain(example.time)}  {plain(example.tool, 60)} {plain(example.arguments)}  by {plain(who)}",
        f"  ({plain(example.decision_id)})",
    )
    for side, effect, reasons in (
        ("A", example.before, example.reasons_before),
        ("B", example.after, example.reasons_after),
    ):
        said = f": {plain('; '.join(reasons), 400)}" if reasons else ""
        text.append(f"\n      {side}  {effect}{said}")
    if example.missing:
        text.append(f"\n      not in the log: {plain(', '.join(example.missing))}")
    return text


def _print_missing(tally: Tally) -> None:
    if tally.missing:
        out.print("\nWhat the log does not tell, and policies may look at")
    for pointer, count in tally.missing.most_common(_MAX_ROWS):
        out.print(Text(f"  {plain(pointer)}: {count}"), soft_wrap=True)


def _print_unlike(tally: Tally) -> None:
    if tally.unlike:
        text = (
            f"\n{tally.unlike} of {tally.checked} decisions that were recorded under A itself are judged "
            f"otherwise now, such as {plain(tally.unlike_example)}: not all that they went by is in the log."
        )
        out.print(Text(text, "bold red"), soft_wrap=True)
    elif tally.checked:
        out.print(f"\n{tally.checked} were recorded under A itself, and are judged as they were then.")
