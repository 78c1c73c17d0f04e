"""What one way through Callgate costs over another: protocols, cached answers, Redis, long histories."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import protocols, reads, workload
from bench.callgate import write_config
from bench.measure import CONCURRENCY, STREAMS_AT_ONCE, Advance, Setting, Side, callgate
from bench.processes import ROOT, Server, free_port

PAST_CALLS = 200
PROTOCOL_GOAL = 1.3
"""Another protocol's CPU over that of chat, at most."""
_FIND_REDIS_S = 120.0


@dataclass(frozen=True, slots=True)
class Relation:
    """CPU time for one request of two kinds, round by round, in microseconds."""

    key: str
    """What its figures are called."""
    over: str
    """What it is compared with."""
    base_us: Sequence[float]
    us: Sequence[float]
    to: str = "cpu_ratio"
    """How the ratio's name ends."""
    goal: float | None = None
    sizes: tuple[int, int] | None = None
    """Bytes of the two requests, where their costs a byte are compared as well."""

    @property
    def ratios(self) -> list[float]:
        """The kind that is meant over the one that it is compared with, for each round."""
        return [b / a for a, b in zip(self.base_us, self.us, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    @property
    def per_byte(self) -> float | None:
        """The ratio of the costs a byte."""
        return self.ratio * self.sizes[0] / self.sizes[1] if self.sizes else None


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is asked: a round's requests of each kind, and the rounds."""

    rounds: int
    bodies: int
    streams: int
    histories: int


def protocol_relations(setting: Setting, amount: Amount, advance: Advance) -> Iterator[Relation]:
    """The same turns over Responses and Messages, over what they cost as chat."""
    for kind, first, count, at_once in (
        ("body", workload.body(), amount.bodies, CONCURRENCY),
        ("stream", workload.stream(), amount.streams, STREAMS_AT_ONCE),
    ):
        streamed = kind == "stream"
        others = (protocols.of_responses(streamed), protocols.of_messages(streamed))
        sides = [Side(setting.callgate, one, count, at_once) for one in (first, *others)]
        chat_us, *others_us = setting.alternate(sides, amount.rounds, advance)
        for other, us in zip(others, others_us, strict=True):
            yield Relation(other.name, f"chat {kind}", chat_us, us, "cpu_ratio_to_chat", PROTOCOL_GOAL)


def cache_relation(setting: Setting, amount: Amount, advance: Advance) -> Relation:
    """A read that the cache answers, over one that is forwarded."""
    for primer in reads.primers():
        setting.drive(setting.callgate, primer, 1, 1)
    exchanges = (reads.forwarded(), reads.cached())
    sides = [Side(setting.callgate, exchange, amount.bodies) for exchange in exchanges]
    base_us, us = setting.alternate(sides, amount.rounds, advance)
    return Relation("cached_answer", "forwarded read", base_us, us)


def history_relation(setting: Setting, amount: Amount, advance: Advance) -> Relation:
    """A conversation of many past calls, over one that begins."""
    base, long = workload.body(), workload.past_calls(PAST_CALLS)
    sides = [
        Side(setting.callgate, base, amount.bodies),
        Side(setting.callgate, long, amount.histories),
    ]
    base_us, us = setting.alternate(sides, amount.rounds, advance)
    return Relation(f"history_{PAST_CALLS}_calls", "no past calls", base_us, us, sizes=(base.size, long.size))


def redis_relation(setting: Setting, amount: Amount, advance: Advance) -> Relation | None:
    """A forwarded read with its state in Redis, over one in memory; None where there is no Redis server.

    A read that the cache may answer later looks into the store and writes to it. The CPU time of the Redis
    server itself does not count: it is another process, on another machine where it matters.
    """
    program = redis_server()
    if program is None:
        return None
    with _callgates(setting, program) as servers:
        sides = [Side(server, reads.forwarded(), amount.bodies) for server in servers]
        base_us, us = setting.alternate(sides, amount.rounds, advance)
    return Relation("redis", "memory", base_us, us)


def redis_server() -> str | None:
    """The path of a Redis or Valkey server, as ``scripts/redis`` finds it."""
    command = ["sh", str(ROOT / "scripts" / "redis")]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_FIND_REDIS_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


@contextmanager
def _callgates(setting: Setting, program: str) -> Iterator[tuple[Server, Server]]:
    """Two that are equally fresh: one with its state in memory, and one with a Redis server of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="callgate-bench-")))
        port = free_port()
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        stack.enter_context(Server("redis", [*options, "--dir", str(folder)], port, program=program))
        in_memory = stack.enter_context(_callgate(setting, folder / "memory"))
        shared = _callgate(setting, folder / "redis", f"redis://127.0.0.1:{port}/0")
        yield in_memory, stack.enter_context(shared)


def _callgate(setting: Setting, folder: Path, redis: str | None = None) -> Server:
    folder.mkdir()
    port, admin = free_port(), free_port()
    config = write_config(folder, port, admin, setting.upstream.port, redis)
    return callgate(f"callgate with its state in {folder.name}", config, port)
