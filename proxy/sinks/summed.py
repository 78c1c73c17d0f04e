"""The metrics of several processes as those of one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_SUMMED = frozenset({"counter", "histogram", "summary"})
_OF_A_PROCESS = ("process_", "python_")

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


class _Family:
    """One metric's samples, in the order in which they first came."""

    def __init__(self, metric: Metric) -> None:
        self.name, self.documentation, self.type = metric.name, metric.documentation, metric.type
        self.values: dict[Sample, float] = defaultdict(float)

    @property
    def summed(self) -> bool:
        """Whether the processes' values add up; a gauge's may or may not, and is told apart by process."""
        return self.type in _SUMMED and not self.name.startswith(_OF_A_PROCESS)

    def add(self, metric: Metric, worker: str) -> None:
        own = () if self.summed else (("worker", worker),)
        for sample in metric.samples:
            self.values[sample.name, (*sample.labels.items(), *own)] += sample.value

    def metric(self) -> Metric:
        metric = Metric(self.name, self.documentation, self.type)
        for (name, labels), value in self.values.items():
            metric.add_sample(name, dict(labels), value)
        return metric


class Summed(Collector):
    """Adds up the counters and histograms of workers; their gauges carry the label ``worker``.

    What a worker had counted when it was last asked stays in the sums after it ended: a sum that fell
    would be read as a counter that began anew, and all of it as new.
    """

    def __init__(self) -> None:
        self._live: dict[str, list[Metric]] = {}
        self._ended: list[Metric] = []

    def take(self, worker: str, exposition: str) -> None:
        """Take a worker's metrics as they stand, in the text format; raises ``ValueError``."""
        self._live[worker] = list(text_string_to_metric_families(exposition))

    def end(self, worker: str) -> None:
        """The worker ended; the next one under its name begins at zero."""
        families: dict[str, _Family] = {}
        for metric in [*self._ended, *self._live.pop(worker, [])]:
            family = families.setdefault(metric.name, _Family(metric))
            if family.summed:
                family.add(metric, worker)
        self._ended = [family.metric() for family in families.values() if family.summed]

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is comes with the first worker."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand."""
        families: dict[str, _Family] = {}
        for worker, metrics in (("", self._ended), *self._live.items()):
            for metric in metrics:
                families.setdefault(metric.name, _Family(metric)).add(metric, worker)
        for family in families.values():
            yield family.metric()
