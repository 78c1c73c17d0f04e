"""Counts of what leaves no record, read from whoever counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class Counted(Collector):
    """A counter whose values another keeps: by label values, how many."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        labels: Sequence[str],
        counts: Callable[[], Mapping[tuple[str, ...], int]],
    ) -> None:
        """``counts`` is called for every reading; what it returns must not shrink, or be without bound."""
        self._name, self._documentation, self._labels, self._counts = name, documentation, labels, counts
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The metric, for the registry to see that no name is taken twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """The metric as it stands."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, count in self._counts().items():
            family.add_metric(labels, count)
        yield family
