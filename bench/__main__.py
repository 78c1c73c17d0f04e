"""``python -m bench``: what Callgate costs, as ratios to a bare pass-through measured in the same run."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import protocols, workload
from bench.callgate import KEY_VARIABLE, write_config
from bench.load import Numbers, drive
from bench.measure import CONCURRENCY, STREAMS_AT_ONCE, Advance, Scale, Setting, upstream
from bench.policy import microseconds_per_decision, opa_over_embedded
from bench.processes import INTERRUPTS, BenchFault, Server, free_port
from bench.profiled import Profile
from bench.relations import (
    Amount,
    cache_relation,
    history_relation,
    protocol_relations,
    redis_relation,
)
from bench.reload import reload
from bench.report import LARGE, SMALL, Results, machine, show, show_profile, show_reload
from bench.workload import Exchange
from proxy.model import dumps

FULL = Scale(
    rounds=11, bodies=500, bursts=160, streams=64, latencies=600, memory=10_000, histories=8, decisions=4500
)
QUICK = Scale(
    rounds=3, bodies=100, bursts=32, streams=16, latencies=60, memory=400, histories=2, decisions=450
)
# Callgate against itself.
_SELF_FULL = Amount(rounds=11, bodies=300, streams=48, histories=32)
_SELF_QUICK = Amount(rounds=3, bodies=60, streams=16, histories=8)
_SELF_STAGES = 5
_MEMORY_REQUESTS = 100_000
_SIZES = (SMALL, 256 * 1024, LARGE)
_PROFILE_FACTOR = 10
# Requests, and how often policies change meanwhile.
_RELOAD_FULL, _RELOAD_QUICK = (10_000, 50), (500, 2)
_PORTIONS, _LATENCY_ROUNDS, _POLICY_CASES = 25, 5, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; the last line of standard output is one JSON object. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds: does it run, and roughly what comes out"
    )
    parser.add_argument(
        "--memory", action="store_true", help=f"watch memory over {_MEMORY_REQUESTS:,} requests"
    )
    parser.add_argument(
        "--profile", action="store_true", help="show where Callgate's time goes, and nothing else"
    )
    parser.add_argument(
        "--reload",
        action="store_true",
        help=f"only: {_RELOAD_FULL[0]:,} requests while policies change {_RELOAD_FULL[1]} times",
    )
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    if options.memory:
        scale = replace(scale, memory=_MEMORY_REQUESTS)
    if not sys.platform.startswith("linux"):
        return _refuse("The benchmark reads CPU time and memory of other processes as only Linux gives them.")
    out = Console(width=110) if not sys.stdout.isatty() else Console()
    INTERRUPTS.install()
    try:
        if options.profile:
            _profile(scale, out)
        elif options.reload:
            _reload(*(_RELOAD_QUICK if options.quick else _RELOAD_FULL), out)
        else:
            results = _measure(scale, _SELF_QUICK if options.quick else _SELF_FULL)
            show(results, out)
            print(dumps(results.as_json()).decode())
    except BenchFault as exc:
        return _refuse(str(exc))
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


@contextmanager
def _progress(total: int) -> Iterator[tuple[Progress, Advance]]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Starting the servers", total=total)
        yield progress, lambda: progress.advance(task)


def _kinds(scale: Scale) -> dict[str, tuple[Exchange, int, int]]:
    """What is sent, how often a round, and how many at once."""
    return {
        "body": (workload.body(), scale.bodies, CONCURRENCY),
        "stream": (workload.stream(), scale.streams, STREAMS_AT_ONCE),
        "burst": (workload.burst(), scale.bursts, CONCURRENCY),
    }


def _measure(scale: Scale, amount: Amount) -> Results:
    results = Results()
    kinds = _kinds(scale)
    total = (len(kinds) + 1) * scale.rounds + 2 * _LATENCY_ROUNDS + _PORTIONS + _POLICY_CASES
    total += _SELF_STAGES * amount.rounds
    with _progress(total) as (progress, advance), Setting() as setting:

        def say(what: str) -> None:
            progress.update(progress.task_ids[0], description=what)

        for name, (exchange, count, at_once) in kinds.items():
            say(f"CPU: {name}")
            results.comparisons[name] = setting.compare(exchange, scale.rounds, count, at_once, advance)
        for name, count in (("body", scale.latencies), ("burst", scale.latencies // 3)):
            say(f"Latency: {name}")
            results.latencies[name] = setting.latency(kinds[name][0], _LATENCY_ROUNDS, count, advance)
        _measure_relations(results, setting, amount, say, advance)
        say("Memory")
        results.memory = setting.memory(scale.memory, _PORTIONS, advance)
        say("Long histories")
        results.history = setting.history(_SIZES, scale.rounds, scale.histories, advance)
        say("Policy decisions")
        results.policy_us = microseconds_per_decision(scale.decisions, advance)
        results.opa = opa_over_embedded(scale.decisions, advance)
    return results


def _measure_relations(
    results: Results, setting: Setting, amount: Amount, say: Callable[[str], None], advance: Advance
) -> None:
    say("CPU: protocols")
    results.relations += protocol_relations(setting, amount, advance)
    say("CPU: cached answers")
    results.relations.append(cache_relation(setting, amount, advance))
    say("CPU: many past calls")
    results.relations.append(history_relation(setting, amount, advance))
    say("CPU: Redis")
    redis = redis_relation(setting, amount, advance)
    results.redis_found = redis is not None
    results.relations += [redis] if redis is not None else []


def _reload(requests: int, flips: int, out: Console) -> None:
    with _progress(2) as (progress, advance):
        progress.update(progress.task_ids[0], description="Policies that change")
        measured = reload(requests, flips, advance)
    show_reload(measured, out)
    print(dumps(measured.as_json() | machine()).decode())


def _profile(scale: Scale, out: Console) -> None:
    """Put load on Callgate as ``bench.profiled`` serves it, once for each kind of request."""
    kinds = _kinds(scale)
    for other in (protocols.of_responses(streamed=True), protocols.of_messages(streamed=True)):
        kinds[other.name] = (other, scale.streams, STREAMS_AT_ONCE)
    for name, (exchange, count, at_once) in kinds.items():
        with TemporaryDirectory(prefix="callgate-bench-") as scratch:
            folder = Path(scratch)
            port, admin, provider = (free_port() for _ in range(3))
            config = write_config(folder, port, admin, provider)
            command = ["-m", "bench.profiled", str(folder / "profile"), str(config)]
            with upstream(provider), Server("callgate", command, port, {KEY_VARIABLE: "sk-bench"}) as server:
                began, total = server.cpu_s(), count * _PROFILE_FACTOR
                asyncio.run(drive(port, exchange, total, at_once, Numbers()))
                cpu_us = (server.cpu_s() - began) / total * 1e6
            show_profile(name, Profile.read(folder / "profile"), cpu_us, out)


if __name__ == "__main__":
    sys.exit(main())
