"""The measurements. Servers that are compared take turns, so that the moods of the machine cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from types import TracebackType

import uvloop

from bench import workload
from bench.callgate import KEY_VARIABLE, write_config
from bench.load import Numbers, Sample, drive
from bench.processes import Server, free_port
from bench.workload import Exchange

CONCURRENCY, STREAMS_AT_ONCE = 8, 16
_HISTORY_CONCURRENCY = 2
_WARM_UP = 0.3
"""The share of the memory run in which caches and pools may still fill."""

Advance = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    bodies: int
    """A round."""
    bursts: int
    streams: int
    latencies: int
    memory: int
    """Requests in all."""
    histories: int
    decisions: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """CPU time for one request in two servers, round by round, in microseconds."""

    passthrough_us: Sequence[float]
    callgate_us: Sequence[float]

    @property
    def ratios(self) -> list[float]:
        """Callgate over the pass-through, for each round."""
        return [b / a for a, b in zip(self.passthrough_us, self.callgate_us, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)


@dataclass(frozen=True, slots=True)
class Side:
    """One of those that take turns: who is asked what, how often a round, and how many at once."""

    server: Server
    exchange: Exchange
    count: int
    concurrency: int = CONCURRENCY


@dataclass
class Latency:
    """Seconds that requests took one at a time: straight to the provider, and through each proxy."""

    first_s: dict[str, list[float]] = field(default_factory=dict)
    total_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, sample: Sample) -> None:
        self.first_s.setdefault(name, []).extend(sample.first_s)
        self.total_s.setdefault(name, []).extend(sample.total_s)


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which ``percent`` of a hundred lie."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of Callgate over many requests."""

    requests: Sequence[int]
    rss_bytes: Sequence[int]

    @property
    def growth_bytes_per_request(self) -> float:
        """The slope of the least-squares line through what was seen after the warm-up."""
        start = int(len(self.requests) * _WARM_UP)
        return _slope(self.requests[start:], self.rss_bytes[start:])


def _slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread


class Setting:
    """The provider, the pass-through and Callgate, each in a process of its own, and the load on them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._numbers = Numbers()

    def __enter__(self) -> Setting:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="callgate-bench-")))
            ports = [free_port() for _ in range(4)]
            self.upstream = stack.enter_context(upstream(ports[0]))
            url = f"http://127.0.0.1:{ports[0]}"
            command = ["-m", "bench.passthrough", str(ports[1]), url]
            self.passthrough = stack.enter_context(Server("passthrough", command, ports[1]))
            config = write_config(folder, ports[2], ports[3], ports[0])
            self.callgate = stack.enter_context(callgate("callgate", config, ports[2]))
            self._runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def drive(self, server: Server, exchange: Exchange, count: int, concurrency: int) -> Sample:
        """Put load on a server until it has answered ``count`` requests."""
        return self._runner.run(drive(server.port, exchange, count, concurrency, self._numbers))

    def _cpu_us(self, server: Server, exchange: Exchange, count: int, concurrency: int) -> float:
        before = server.cpu_s()
        self.drive(server, exchange, count, concurrency)
        return (server.cpu_s() - before) / count * 1e6

    def compare(
        self, exchange: Exchange, rounds: int, count: int, concurrency: int, advance: Advance
    ) -> Comparison:
        """CPU a request in both proxies, in alternating rounds."""
        both = [Side(server, exchange, count, concurrency) for server in (self.passthrough, self.callgate)]
        return Comparison(*self.alternate(both, rounds, advance))

    def alternate(self, sides: Sequence[Side], rounds: int, advance: Advance) -> list[list[float]]:
        """CPU a request of each side, round by round, in microseconds; every other round runs backwards."""
        seen: list[list[float]] = [[] for _ in sides]
        for side in sides:
            self.drive(side.server, side.exchange, max(side.count // 3, side.concurrency), side.concurrency)
        for number in range(rounds):
            order = list(zip(sides, seen, strict=True))
            for side, figures in order if number % 2 else order[::-1]:
                figures.append(self._cpu_us(side.server, side.exchange, side.count, side.concurrency))
            advance()
        return seen

    def latency(self, exchange: Exchange, rounds: int, count: int, advance: Advance) -> Latency:
        """What requests take one at a time, ``count`` of them to each server."""
        latency = Latency()
        share = max(count // rounds, 2)
        for _ in range(rounds):
            for server in (self.upstream, self.passthrough, self.callgate):
                latency.add(server.name, self.drive(server, exchange, share, 1))
            advance()
        return latency

    def memory(self, count: int, portions: int, advance: Advance) -> Memory:
        """Resident memory over ``count`` requests, every fourth streamed, none the same."""
        share = max(count // portions, 4)
        requests, rss = [0], [self.callgate.rss_bytes()]
        for number in range(1, portions + 1):
            self.drive(self.callgate, workload.body(), share - share // 4, CONCURRENCY)
            self.drive(self.callgate, workload.burst(), share // 4, CONCURRENCY)
            requests.append(number * share)
            rss.append(self.callgate.rss_bytes())
            advance()
        return Memory(requests, rss)

    def history(
        self, sizes: Sequence[int], rounds: int, count: int, advance: Advance
    ) -> dict[int, tuple[int, float]]:
        """For each size of a history: the request's bytes and Callgate's CPU for it, in microseconds."""
        exchanges = {size: workload.history(size) for size in sizes}
        seen: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(rounds):
            for size, exchange in exchanges.items():
                # The smaller ones are over soon: ask more of them.
                asked = max(count, count * sizes[-1] // size // 4)
                seen[size].append(self._cpu_us(self.callgate, exchange, asked, _HISTORY_CONCURRENCY))
            advance()
        return {size: (exchanges[size].size, median(seen[size])) for size in sizes}


def upstream(port: int) -> Server:
    """The provider."""
    return Server("direct", ["-m", "bench.upstream", str(port)], port)


def callgate(name: str, config: Path, port: int) -> Server:
    """Callgate as ``callgate serve`` runs it."""
    command = ["-m", "proxy", "serve", "--config", str(config), "--log-level", "warning"]
    return Server(name, command, port, {KEY_VARIABLE: "sk-bench"})
