"""Metrics: a fold over the records, in the Prometheus formats. docs/metrics.md says what each one means."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from proxy.model import MAX_SAFE_INTEGER
from proxy.record import (
    DecisionRecord,
    ExchangeRecord,
    PolicyRecord,
    Record,
    ResultRecord,
    Step,
    TicketRecord,
)

OTHER = "other"
"""The label value of every name that may not have one of its own."""

_MAX_NAME_CHARS = 128
_GUARD_MICROS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
_EXCHANGE_SECONDS = (1e-3, 5e-3, 10e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_MAX_USD = 1e9
_ROUNDS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)


class _Names(dict[str, str]):
    """Name -> label value. Models and clients invent names: only so many get a value of their own."""

    def __init__(self, known: Iterable[str], limit: int) -> None:
        super().__init__((name, name) for name in known)
        self._limit = len(self) + limit

    def __missing__(self, name: str) -> str:
        # Printable: a lone surrogate could not be written, and would take the whole exposition with it.
        if len(self) >= self._limit or not 0 < len(name) <= _MAX_NAME_CHARS or not name.isprintable():
            return OTHER
        self[name] = name
        return name


class _Counts(dict[tuple[str, ...], float]):
    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        super().__init__()
        self._name, self._documentation, self._labels = name, documentation, labels

    def __missing__(self, labels: tuple[str, ...]) -> float:
        return 0

    def family(self) -> Metric:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self.copy().items():
            family.add_metric(labels, count)
        return family


class _Histogram(dict[tuple[str, ...], list[float]]):
    """Label values -> how many fell into each bucket, and last their sum."""

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], labels: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = bounds

    def __missing__(self, labels: tuple[str, ...]) -> list[float]:
        cells = self[labels] = [0] * (len(self._bounds) + 1) + [0.0]
        return cells

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        cells = self[labels]
        cells[bisect_left(self._bounds, value)] += 1
        cells[-1] += value

    def family(self) -> Metric:
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, cells in self.copy().items():
            family.add_metric(labels, list(zip(names, accumulate(cells[:-1]), strict=True)), cells[-1])
        return family


class _Steps(dict[tuple[str, str, bool], list[int]]):
    """Guard, verdict and whether it was only watched -> how many steps fell into each bucket, and last the
    sum of their microseconds. What is counted of a step is counted once, and read as two metrics."""

    def __missing__(self, step: tuple[str, str, bool]) -> list[int]:
        cells = self[step] = [0] * (len(_GUARD_MICROS) + 2)
        return cells

    def count(self, trail: Sequence[Step]) -> None:
        for step in trail:
            cells = self[step.guard, step.verdict, step.shadow]
            cells[bisect_left(_GUARD_MICROS, step.micros)] += 1
            cells[-1] += step.micros

    def verdicts(self) -> Metric:
        counts = _Counts("callgate_guard_verdicts", "What each guard said.", ("guard", "verdict", "mode"))
        for (guard, verdict, is_shadow), cells in self.copy().items():
            counts[guard, verdict, "shadow" if is_shadow else "enforce"] = sum(cells[:-1])
        return counts.family()

    def seconds(self) -> Metric:
        bounds = [micros / 1e6 for micros in _GUARD_MICROS]
        times = _Histogram("callgate_guard_seconds", "Time a guard took over one call.", bounds, ("guard",))
        for (guard, _, _), cells in self.copy().items():
            *buckets, micros = cells
            summed = [known + more for known, more in zip(times[(guard,)], buckets, strict=False)]
            times[(guard,)] = [*summed, times[(guard,)][-1] + micros / 1e6]
        return times.family()


class MetricsSink(Collector):
    """A ``Sink`` that counts records and gives the counts to ``registry``; for one writing thread.

    ``tools`` and ``models`` always have label values of their own; of other names, which models and
    clients may invent, the first ``max_names`` of each do, and the rest share ``other``.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        tools: Iterable[str] = (),
        models: Iterable[str] = (),
        max_names: int = 500,
    ) -> None:
        self._tools, self._models = _Names(tools, max_names), _Names(models, max_names)
        self._decisions = _Counts(
            "callgate_decisions", "Tool calls judged.", ("tool", "verdict", "effect", "guard")
        )
        self._steps = _Steps()
        self._exchanges = _Counts("callgate_exchanges", "Client requests.", ("protocol", "outcome"))
        self._rounds = _Histogram(
            "callgate_exchange_rounds", "How often the provider was asked for one client request.", _ROUNDS
        )
        self._seconds = _Histogram(
            "callgate_exchange_seconds", "Time of one client request.", _EXCHANGE_SECONDS, ("component",)
        )
        self._tokens = _Counts("callgate_tokens", "Tokens, as providers count them.", ("model", "direction"))
        self._cost_usd = _Counts(
            "callgate_cost_usd", "What tokens cost, by list price or the operator's.", ("model",)
        )
        self._restored = _Counts("callgate_restored_calls", "Calls settled earlier and put back.")
        self._tickets = _Counts("callgate_tickets", "Steps of turns held for a person.", ("event", "by"))
        self._policies = _Counts(
            "callgate_policy_changes", "Policies put in force, or refused when they changed.", ("event",)
        )
        self._drifted = _Counts(
            "callgate_drifted_definitions",
            "Requests whose definition of a tool is not the pinned one.",
            ("tool",),
        )
        self._results = _Counts("callgate_results", "Tool results seen on their way.", ("tool", "effect"))
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The metrics, for the registry to see that no name is taken twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand."""
        yield self._decisions.family()
        yield self._steps.verdicts()
        yield self._steps.seconds()
        yield self._exchanges.family()
        yield self._rounds.family()
        yield self._seconds.family()
        yield self._tokens.family()
        yield self._cost_usd.family()
        yield self._restored.family()
        yield self._tickets.family()
        yield self._results.family()
        yield self._drifted.family()
        yield self._policies.family()

    def write(self, record: Record) -> None:
        """Count a record."""
        if isinstance(record, DecisionRecord):
            self._count_decision(record)
        elif isinstance(record, ExchangeRecord):
            self._count_exchange(record)
        elif isinstance(record, TicketRecord):
            self._tickets[record.event, record.by] += 1
        elif isinstance(record, PolicyRecord):
            self._policies[(record.event,)] += 1
        elif isinstance(record, ResultRecord):
            self._results[self._tools[record.tool], record.effect] += 1

    def _count_decision(self, record: DecisionRecord) -> None:
        self._decisions[self._tools[record.tool], record.verdict, record.effect, record.guard or "none"] += 1
        self._steps.count(record.trail)

    def _count_exchange(self, record: ExchangeRecord) -> None:
        self._exchanges[record.protocol, record.outcome] += 1
        self._rounds.observe((), record.rounds)
        for component, seconds in record.latency_s.items():
            self._seconds.observe((component,), seconds)
        self._count_tokens(record.model, "input", record.input_tokens)
        self._count_tokens(record.model, "output", record.output_tokens)
        if record.cost_usd is not None and 0 < record.cost_usd <= _MAX_USD:
            self._cost_usd[self._models[record.model],] += record.cost_usd
        for name in record.admission.get("drifted", ()):
            self._drifted[self._tools[name],] += 1
        if record.restored:
            self._restored[()] += record.restored

    def _count_tokens(self, model: str, direction: str, tokens: int | None) -> None:
        # The provider says how many: a number that no counter can hold is not counted.
        if tokens and 0 < tokens <= MAX_SAFE_INTEGER:
            self._tokens[self._models[model], direction] += tokens
