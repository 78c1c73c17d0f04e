"""What was measured, for people as tables and for machines as one JSON object."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.measure import Comparison, Latency, Memory, percentile
from bench.policy import GOAL_US
from bench.profiled import Profile
from bench.relations import Relation
from bench.reload import Reload

GOALS = {"body": 1.8, "stream": 1.5}
"""Callgate's CPU over the pass-through's, at most."""
SMALL, LARGE = 64 * 1024, 1024 * 1024
"""The histories whose cost a byte is compared."""
PROFILE_ROWS = 30


@dataclass
class Results:
    """Everything that one run measured."""

    comparisons: dict[str, Comparison] = field(default_factory=dict)
    latencies: dict[str, Latency] = field(default_factory=dict)
    memory: Memory | None = None
    history: Mapping[int, tuple[int, float]] = field(default_factory=dict)
    policy_us: Mapping[str, float] = field(default_factory=dict)
    opa: tuple[float, float] | None = None
    """Microseconds for one decision of an OPA server, and how many times the embedded engine's that is."""
    relations: list[Relation] = field(default_factory=list)
    redis_found: bool = True

    def as_json(self) -> dict[str, Any]:
        """Flat, with the unit at the end of each key."""
        flat: dict[str, Any] = {}
        for name, compared in self.comparisons.items():
            flat |= _cpu_fields(name, compared)
        for name, latency in self.latencies.items():
            flat |= _latency_fields(name, latency)
        if self.memory is not None:
            flat["rss_growth_bytes_per_request"] = round(self.memory.growth_bytes_per_request, 2)
            flat["rss_requests"] = self.memory.requests[-1]
            flat["rss_start_bytes"] = self.memory.rss_bytes[0]
            flat["rss_bytes"] = self.memory.rss_bytes[-1]
        if self.history:
            flat["history_cost_per_byte_ratio"] = round(self.history_ratio, 3)
            flat |= {f"history_{size // 1024}kb_cpu_us": round(us) for size, (_, us) in self.history.items()}
        flat |= {f"policy_{name}_us": round(us, 1) for name, us in self.policy_us.items()}
        if self.opa is not None:
            flat |= {"policy_opa_us": round(self.opa[0], 1), "policy_opa_ratio": round(self.opa[1], 2)}
        for relation in self.relations:
            flat |= _relation_fields(relation)
        return flat | machine()

    @property
    def history_ratio(self) -> float:
        """CPU for one byte of a long history over that for one byte of a short one."""
        (small, small_us), (large, large_us) = self.history[SMALL], self.history[LARGE]
        return (large_us / large) / (small_us / small)


def machine() -> dict[str, Any]:
    """What it ran on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "aiohttp": version("aiohttp"),
        "uvloop": version("uvloop"),
    }


def _cpu_fields(name: str, compared: Comparison) -> dict[str, Any]:
    return {
        f"{name}_cpu_ratio": round(compared.ratio, 3),
        f"{name}_cpu_ratio_min": round(min(compared.ratios), 3),
        f"{name}_cpu_ratio_max": round(max(compared.ratios), 3),
        f"{name}_passthrough_cpu_us": round(percentile(compared.passthrough_us, 50)),
        f"{name}_callgate_cpu_us": round(percentile(compared.callgate_us, 50)),
    }


def _relation_fields(relation: Relation) -> dict[str, Any]:
    fields: dict[str, Any] = {
        f"{relation.key}_{relation.to}": round(relation.ratio, 3),
        f"{relation.key}_{relation.to}_min": round(min(relation.ratios), 3),
        f"{relation.key}_{relation.to}_max": round(max(relation.ratios), 3),
        f"{relation.key}_cpu_us": round(percentile(relation.us, 50)),
        f"{relation.key}_base_cpu_us": round(percentile(relation.base_us, 50)),
    }
    if relation.per_byte is not None:
        fields[f"{relation.key}_cpu_per_kb_ratio"] = round(relation.per_byte, 3)
    return fields


def _latency_fields(name: str, latency: Latency) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for measured, seconds in (("first_byte", latency.first_s), ("total", latency.total_s)):
        for proxy in ("passthrough", "callgate"):
            for percent in (50, 99):
                key = f"{name}_{measured}_{proxy}_added_p{percent}_ms"
                fields[key] = round(added_ms(seconds, proxy, percent), 3)
    return fields


def added_ms(seconds: Mapping[str, list[float]], proxy: str, percent: int) -> float:
    """What a proxy adds to a percentile of the direct way, in milliseconds."""
    return (percentile(seconds[proxy], percent) - percentile(seconds["direct"], percent)) * 1000


def show(results: Results, out: Console) -> None:
    """Print the tables."""
    for table in (
        _cpu_table(results),
        _relation_table(results),
        _latency_table(results),
        _rest_table(results),
    ):
        out.print(table)
        out.print()


def _cpu_table(results: Results) -> Table:
    table = Table(title="CPU time a request (user + system, all threads)", title_justify="left")
    for heading in ("Workload", "Pass-through", "Callgate", "Ratio", "Rounds", "Goal"):
        table.add_column(heading, justify="left" if heading == "Workload" else "right")
    for name, compared in results.comparisons.items():
        goal = GOALS.get(name)
        met = "green" if goal is None or compared.ratio <= goal else "red"
        table.add_row(
            name,
            f"{percentile(compared.passthrough_us, 50):,.0f} µs",
            f"{percentile(compared.callgate_us, 50):,.0f} µs",
            f"[{met}]{compared.ratio:.2f}[/]",
            f"{min(compared.ratios):.2f} to {max(compared.ratios):.2f}",
            "" if goal is None else f"≤ {goal:g}",
        )
    return table


def _relation_table(results: Results) -> Table:
    table = Table(title="Callgate against itself: CPU time a request", title_justify="left")
    for heading in ("Kind", "µs", "Over", "µs", "Ratio", "Rounds", "Goal"):
        table.add_column(heading, justify="left" if heading in ("Kind", "Over") else "right")
    for relation in results.relations:
        goal = relation.goal
        met = "green" if goal is None or relation.ratio <= goal else "red"
        table.add_row(
            relation.key.replace("_", " "),
            f"{percentile(relation.us, 50):,.0f}",
            relation.over,
            f"{percentile(relation.base_us, 50):,.0f}",
            f"[{met}]{relation.ratio:.2f}[/]",
            f"{min(relation.ratios):.2f} to {max(relation.ratios):.2f}",
            "" if goal is None else f"≤ {goal:g}",
        )
    if not results.redis_found:
        table.add_row("redis", "not measured", "no server", "", "", "", "")
    return table


def _latency_table(results: Results) -> Table:
    table = Table(title="Added to the direct way, one request at a time", title_justify="left")
    for heading in ("Workload", "Until", "Pass-through p50", "p99", "Callgate p50", "p99"):
        table.add_column(heading, justify="left" if heading in ("Workload", "Until") else "right")
    for name, latency in results.latencies.items():
        for until, seconds in (("first byte", latency.first_s), ("last byte", latency.total_s)):
            cells = [
                f"{added_ms(seconds, proxy, percent):.2f} ms"
                for proxy in ("passthrough", "callgate")
                for percent in (50, 99)
            ]
            table.add_row(name, until, *cells)
    return table


def _rest_table(results: Results) -> Table:
    table = Table(title="Callgate by itself", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    if (memory := results.memory) is not None:
        growth = f"{memory.growth_bytes_per_request:+.1f} bytes a request"
        table.add_row(f"Memory over {memory.requests[-1]:,} requests", growth)
        table.add_row("Resident memory at the end", f"{memory.rss_bytes[-1] / 2**20:.0f} MB")
    for size, (length, us) in results.history.items():
        table.add_row(
            f"CPU for a history of {size // 1024} KB", f"{us:,.0f} µs ({us / length * 1024:.2f} a KB)"
        )
    if results.history:
        table.add_row("Cost a byte, 1024 KB over 64 KB (goal ≤ 1)", f"{results.history_ratio:.2f}")
    for relation in results.relations:
        if relation.per_byte is not None:
            title = f"Cost a KB, {relation.key.replace('_', ' ')} over {relation.over}"
            table.add_row(title, f"{relation.per_byte:.2f}")
    for name, us in results.policy_us.items():
        goal = f" (goal ≤ {GOAL_US:g})" if name == "allow" else ""
        table.add_row(f"Policy decision: {name.replace('_', ' ')}{goal}", f"{us:,.0f} µs")
    if results.opa is not None:
        table.add_row("The same of an OPA server, over the embedded engine", f"{results.opa[1]:.1f} times")
    elif results.policy_us:
        table.add_row("The same of an OPA server", "not measured: scripts/opa finds none")
    return table


def show_profile(name: str, profile: Profile, cpu_us: float, out: Console) -> None:
    """Print where the CPU time of a request goes: ``cpu_us`` shared out over the samples."""
    title = f"{name}: {cpu_us:,.0f} µs of CPU a request, by {profile.samples:,} samples"
    table = Table(title=title, title_justify="left")
    for heading in ("Own µs", "With callees", "Function"):
        table.add_column(heading, justify="left" if heading == "Function" else "right", no_wrap=True)
    for place, own in profile.own.most_common(PROFILE_ROWS):
        one = cpu_us / max(profile.samples, 1)
        table.add_row(f"{own * one:.1f}", f"{profile.total[place] * one:.1f}", place)
    out.print(table)


def show_reload(measured: Reload, out: Console) -> None:
    """Print what requests noticed of policies that changed."""
    table = Table(title=f"Policies that change {measured.flips} times under load", title_justify="left")
    for title in ("", "requests", "p50 ms", "p99 ms", "slowest ms"):
        table.add_column(title, justify="left" if not title else "right")
    for name, seconds in (("at rest", measured.resting_s), ("changing", measured.flipping_s)):
        numbers = [percentile(seconds, 50), percentile(seconds, 99), max(seconds)]
        table.add_row(name, f"{len(seconds):,}", *(f"{number * 1000:.1f}" for number in numbers))
    out.print(table)
