"""What requests notice of policies that change under load: each is judged by one revision, and none waits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from bench import workload
from bench.callgate import KEY_VARIABLE, write_config
from bench.load import Numbers, drive
from bench.measure import CONCURRENCY, Advance, percentile, upstream
from bench.processes import BenchFault, Server, free_port
from proxy.model import dumps, loads

_BATCH = 250
_FLIP_WITHIN_S = 60.0
_LOADED = 'callgate_policy_changes_total{event="loaded"}'
# What is masked shows in the record and not to the client: the same answer is right under both revisions.
_MASKS: tuple[dict[str, list[str]], ...] = ({}, {workload.CALL: ["/customer_id"]})


@dataclass(frozen=True, slots=True)
class Reload:
    """Seconds that requests took, with policies at rest and with policies that change."""

    flips: int
    resting_s: list[float]
    flipping_s: list[float]

    def as_json(self) -> dict[str, Any]:
        """Flat, with the unit at the end of each key."""
        found: dict[str, Any] = {
            "reload_flips": self.flips,
            "reload_requests": len(self.flipping_s),
            "reload_resting_requests": len(self.resting_s),
        }
        for name, seconds in (("resting", self.resting_s), ("flipping", self.flipping_s)):
            found[f"reload_{name}_p50_ms"] = round(percentile(seconds, 50) * 1000, 2)
            found[f"reload_{name}_p99_ms"] = round(percentile(seconds, 99) * 1000, 2)
            found[f"reload_{name}_slowest_ms"] = round(max(seconds) * 1000, 2)
        return found


def reload(requests: int, flips: int, advance: Advance) -> Reload:
    """Drive at least so many requests without and with so many changes; raises ``BenchFault``.

    Every record must show the decision of the revision that it names.
    """
    with _serving() as (folder, port, admin, server):
        resting, flipping = asyncio.run(_driven(folder, port, admin, requests, flips, advance))
        server.stop()  # which writes the last record
        _check(folder / "audit", len(resting) + len(flipping) + _BATCH)
    return Reload(flips, resting, flipping)


@contextmanager
def _serving() -> Iterator[tuple[Path, int, int, Server]]:
    with TemporaryDirectory(prefix="callgate-bench-") as scratch:
        folder = Path(scratch)
        port, admin, provider = (free_port() for _ in range(3))
        config = write_config(folder, port, admin, provider)
        _mask(folder, 0)
        command = ["-m", "proxy", "serve", "--config", str(config), "--log-level", "error"]
        environ = {KEY_VARIABLE: "sk-bench"}
        with upstream(provider), Server("callgate", command, port, environ) as server:
            yield folder, port, admin, server


def _mask(folder: Path, number: int) -> None:
    """Write the data that change, whole, as a deployment does."""
    place = folder / "data" / "callgate" / "mask"
    place.mkdir(parents=True, exist_ok=True)
    written = folder / "mask.json"
    written.write_bytes(dumps(_MASKS[number % len(_MASKS)]))
    written.rename(place / "data.json")


async def _driven(
    folder: Path, port: int, admin: int, requests: int, flips: int, advance: Advance
) -> tuple[list[float], list[float]]:
    numbers, exchange = Numbers(), workload.body()

    async def some() -> list[float]:
        return (await drive(port, exchange, _BATCH, CONCURRENCY, numbers)).total_s

    await some()  # caches fill, which is not what is measured
    resting: list[float] = []
    while len(resting) < requests:
        resting += await some()
    advance()
    flipping: list[float] = []
    changing = asyncio.create_task(_flip(folder, admin, flips))
    while len(flipping) < requests or not changing.done():
        flipping += await some()
    await changing
    advance()
    return resting, flipping


async def _flip(folder: Path, admin: int, flips: int) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(_FLIP_WITHIN_S * flips):
        for number in range(1, flips + 1):
            _mask(folder, number)
            while await _loaded(session, admin) <= number:
                await asyncio.sleep(0.1)


async def _loaded(session: aiohttp.ClientSession, admin: int) -> int:
    """How often policies were put in force, the first time included."""
    async with session.get(f"http://127.0.0.1:{admin}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next((int(float(line.split()[-1])) for line in lines if line.startswith(_LOADED)), 0)


def _check(audit: Path, requests: int) -> None:
    """Every request left a decision, and every decision is that of the revision which its record names."""
    shown: dict[str, set[str]] = defaultdict(set)
    decisions = 0
    for segment in sorted(audit.glob("*.jsonl")):
        for line in segment.read_text().splitlines():
            record = loads(line)
            if record["kind"] == "decision":
                decisions += 1
                arguments = loads(workload.ARGUMENTS) | record["arguments_written"]
                shown[record["policy_revision"]].add(f"{record['verdict']} {arguments['customer_id']}")
    if decisions != requests:
        raise BenchFault(f"{requests} requests left {decisions} decisions")
    told = {word for words in shown.values() for word in words}
    if any(len(words) > 1 for words in shown.values()) or len(told) != len(_MASKS):
        raise BenchFault(f"the decisions are not those of the revisions that they name: {dict(shown)}")
