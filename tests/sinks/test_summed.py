"""Several processes' metrics as one: sums equal those of one sink that saw everything, and never fall."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy.record import Step
from proxy.sinks.metrics import MetricsSink
from proxy.sinks.summed import Summed

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Process:
    """A process that counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sink = MetricsSink(self.registry)

    def count(self, tool: str, seconds: float) -> None:
        self.sink._decisions[tool, "Allow", "forward", "none"] += 1
        self.sink._steps.count([Step(tool, "Allow", int(seconds * 1e6))])

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def samples(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exposed(summed: Summed) -> str:
    registry = CollectorRegistry()
    registry.register(summed)
    return generate_latest(registry).decode()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 2), st.sampled_from("ab"), st.floats(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 2)),
    ),
    max_size=40,
)


@given(STEPS)
def test_sums_are_those_of_one_process_whatever_ends(steps: Sequence[tuple]) -> None:
    workers, whole, summed = [Process() for _ in range(3)], Process(), Summed()
    for step in steps:
        number = step[1]
        if step[0] == "count":
            workers[number].count(*step[2:])
            whole.count(*step[2:])
            summed.take(str(number), workers[number].text())
        else:
            summed.end(str(number))
            workers[number] = Process()
    got, wanted = samples(exposed(summed)), samples(whole.text())
    assert {name: value for name, value in got.items() if value} == pytest.approx(
        {name: value for name, value in wanted.items() if value}
    )


def test_what_was_counted_since_it_was_last_asked_is_lost_and_nothing_else() -> None:
    worker, summed = Process(), Summed()
    worker.count("a", 1)
    summed.take("1", worker.text())
    worker.count("a", 1)
    summed.end("1")
    summed.end("1")
    (value,) = [v for (name, _), v in samples(exposed(summed)).items() if name == "callgate_decisions_total"]
    assert value == 1


def test_gauges_are_told_apart_and_end_with_their_worker() -> None:
    summed = Summed()
    for number in ("1", "2"):
        registry = CollectorRegistry()
        Gauge("depth", "How deep.", registry=registry).set(int(number))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        summed.take(number, generate_latest(registry).decode())
    both = samples(exposed(summed))
    assert both["depth", (("worker", "1"),)] == 1
    assert both["depth", (("worker", "2"),)] == 2
    assert ("process_cpu_seconds_total", (("worker", "2"),)) in both
    summed.end("1")
    left = samples(exposed(summed))
    assert {dict(labels)["worker"] for _, labels in left} == {"2"}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_sums_can_be_written_in_every_format(accept: str) -> None:
    one, summed = Process(), Summed()
    one.count("a", 0.5)
    summed.take("1", one.text())
    summed.take("2", one.text())
    registry = CollectorRegistry()
    registry.register(summed)
    encode, _ = choose_encoder(accept)
    lines = encode(registry).decode().splitlines()
    assert any(line.startswith("callgate_decisions_total{") and line.endswith(" 2.0") for line in lines)
    assert any('le="+Inf"' in line and line.endswith(" 2.0") for line in lines)


@given(
    st.text(st.characters(), min_size=1, max_size=20) | st.text('\\"{}=,# n\u2028', min_size=1, max_size=20)
)
def test_whatever_name_a_model_invents_comes_through(name: str) -> None:
    one, summed = Process(), Summed()
    one.count(one.sink._tools[name], 1)
    summed.take("1", one.text())
    assert samples(exposed(summed)) == samples(one.text())
    (labels,) = [dict(labels) for sample, labels in samples(exposed(summed)) if "decisions" in sample]
    assert labels["tool"] == one.sink._tools[name]


def test_what_is_no_exposition_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        Summed().take("1", "callgate_decisions_total{ oops\n")
