"""Metrics: what is counted, that the log gives the same counts, and that nobody can flood them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.trial.candidate import Candidate
from proxy.parts.policies import count_evaluations
from proxy.parts.trial import count_candidate
from proxy.record import PolicyRecord, Record, ResultRecord, Step, TicketRecord
from proxy.sinks.chain import entries
from proxy.sinks.metrics import OTHER, MetricsSink
from proxy.sinks.reading import record_of

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


class Metrics:
    def __init__(self, **options: Any) -> None:
        self.registry = CollectorRegistry()
        self.sink = MetricsSink(self.registry, **options)

    def fold(self, *records: Record | None) -> Metrics:
        for record in records:
            if record is not None:
                self.sink.write(record)
        return self

    def __getitem__(self, sample: str) -> float | None:
        name, _, labels = sample.rstrip("}").partition("{")
        return self.registry.get_sample_value(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)))

    def label_values(self, label: str) -> set[str]:
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return {sample.labels[label] for sample in samples if label in sample.labels}


def test_a_decision_is_counted(decision) -> None:
    shadow = Step("limits", "Deny", 2_000_000, ("too many",), shadow=True)
    refused = {"verdict": "Deny", "effect": "settle", "guard": "policy"}
    trail = (Step("schema", "Allow", 10), Step("policy", "Deny", 44), shadow)
    metrics = Metrics().fold(decision(), decision(**refused, trail=trail), decision(**refused, trail=trail))
    decided = 'callgate_decisions_total{tool="search_users",'
    assert metrics[decided + 'verdict="Allow",effect="forward",guard="none"}'] == 1
    assert metrics[decided + 'verdict="Deny",effect="settle",guard="policy"}'] == 2
    said = "callgate_guard_verdicts_total"
    assert metrics[said + '{guard="schema",verdict="Allow",mode="enforce"}'] == 3
    assert metrics[said + '{guard="policy",verdict="Deny",mode="enforce"}'] == 2
    assert metrics[said + '{guard="limits",verdict="Deny",mode="shadow"}'] == 2
    assert metrics['callgate_guard_seconds_count{guard="policy"}'] == 3
    assert metrics['callgate_guard_seconds_sum{guard="limits"}'] == 4
    assert metrics['callgate_guard_seconds_bucket{guard="schema",le="1e-05"}'] == 2
    assert metrics['callgate_guard_seconds_bucket{guard="schema",le="3e-05"}'] == 3
    assert metrics['callgate_guard_seconds_bucket{guard="limits",le="1.0"}'] == 0
    assert metrics['callgate_guard_seconds_bucket{guard="limits",le="3.0"}'] == 2


def test_an_exchange_is_counted(exchange) -> None:
    metrics = Metrics().fold(exchange(), exchange(outcome="answered", rounds=3, restored=2))
    assert metrics['callgate_exchanges_total{protocol="chat",outcome="forwarded"}'] == 1
    assert metrics['callgate_exchanges_total{protocol="chat",outcome="answered"}'] == 1
    assert metrics["callgate_exchange_rounds_sum"] == 4
    assert metrics['callgate_exchange_rounds_bucket{le="1.0"}'] == 1
    assert metrics['callgate_exchange_rounds_bucket{le="+Inf"}'] == 2
    assert metrics['callgate_exchange_seconds_sum{component="total"}'] == 2.5
    assert metrics['callgate_exchange_seconds_count{component="first_byte"}'] == 2
    assert metrics['callgate_tokens_total{model="gpt-4o",direction="input"}'] == 1624
    assert metrics['callgate_tokens_total{model="gpt-4o",direction="output"}'] == 128
    assert metrics['callgate_cost_usd_total{model="gpt-4o"}'] == 0.5
    assert metrics["callgate_restored_calls_total"] == 2


def test_longer_than_every_bucket_is_still_counted(exchange) -> None:
    metrics = Metrics().fold(exchange(latency_s={"total": 1e6}))
    assert metrics['callgate_exchange_seconds_bucket{component="total",le="300.0"}'] == 0
    assert metrics['callgate_exchange_seconds_bucket{component="total",le="+Inf"}'] == 1


@pytest.mark.parametrize("tokens", [None, 0, -5, 10**400, 2**53])
def test_token_counts_that_no_counter_can_hold_are_left_out(exchange, tokens: int | None) -> None:
    metrics = Metrics().fold(exchange(input_tokens=tokens), exchange())
    assert metrics['callgate_tokens_total{model="gpt-4o",direction="input"}'] == 812


@pytest.mark.parametrize("cost_usd", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_costs_that_no_counter_can_hold_are_left_out(exchange, cost_usd: float | None) -> None:
    metrics = Metrics().fold(exchange(cost_usd=cost_usd), exchange())
    assert metrics['callgate_cost_usd_total{model="gpt-4o"}'] == 0.25


names = st.text(st.characters(exclude_categories=()), max_size=5)
steps = st.builds(
    Step,
    st.sampled_from(["loop", "schema", "policy"]),
    st.sampled_from(["Allow", "Deny", "Repair"]),
    st.integers(0, 10**7),
    st.just(()),
    st.booleans(),
)
seconds = st.dictionaries(st.sampled_from(["total", "upstream", "judging"]), st.floats(0, 1e4))
tokens = st.none() | st.integers(0, 2**60)
changes = st.tuples(
    st.just("decision"),
    st.fixed_dictionaries({"tool": names, "trail": st.lists(steps, max_size=4).map(tuple)}),
) | st.tuples(
    st.just("exchange"),
    st.fixed_dictionaries(
        {"model": names, "latency_s": seconds, "input_tokens": tokens, "restored": st.integers(0, 9)}
    ),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(changes, max_size=20))
def test_a_fold_over_the_log_gives_the_live_counters(
    tmp_path_factory, write, decision, exchange, made: list[tuple[str, dict[str, Any]]]
) -> None:
    make = {"decision": decision, "exchange": exchange}
    records = [make[kind](**values) for kind, values in made]
    directory = tmp_path_factory.mktemp("audit")
    write(directory, records, segment_bytes=4000)
    live = Metrics(max_names=3).fold(*records)
    from_log = Metrics(max_names=3).fold(*map(record_of, entries(directory)))
    assert generate_latest(live.registry) == generate_latest(from_log.registry)


def test_invented_names_share_one_value(decision, exchange) -> None:
    metrics = Metrics(tools=["ours", "second"], models=["gpt-4o"], max_names=10)
    metrics.fold(*(decision(tool=f"invented_{n}") for n in range(1000)))
    metrics.fold(*(exchange(model=f"invented-{n}") for n in range(1000)))
    metrics.fold(decision(tool="ours"), exchange())
    assert metrics.label_values("tool") == {f"invented_{n}" for n in range(10)} | {OTHER, "ours"}
    assert metrics.label_values("model") == {f"invented-{n}" for n in range(10)} | {OTHER, "gpt-4o"}
    counted = 'callgate_decisions_total{tool="other",verdict="Allow",effect="forward",guard="none"}'
    assert metrics[counted] == 990


ODD_NAMES = ["", "\ud800", "a\nb", "a\rb", "\x00", "n" * 129, "\u202e", "\ufeff"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_names_that_cannot_be_written_take_no_value(decision, exchange, name: str) -> None:
    metrics = Metrics().fold(decision(tool=name), exchange(model=name))
    assert metrics.label_values("tool") == metrics.label_values("model") == {OTHER}


@given(name=st.text(st.characters(exclude_categories=()), max_size=10))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_names_the_metrics_can_be_read(decision, exchange, name: str) -> None:
    metrics = Metrics().fold(decision(tool=name), exchange(model=name))
    text = generate_latest(metrics.registry).decode()
    read = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    assert {"callgate_decisions_total", "callgate_tokens_total"} <= read
    assert generate_openmetrics(metrics.registry).endswith(b"# EOF\n")


def test_a_registry_takes_the_sink_once() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="Duplicated"):
        MetricsSink(metrics.registry)


WHO = {"id": "alice", "roles": [], "tenant": "", "kind": "header"}
TICKET = TicketRecord("2026-01-01T00:00:00.000Z", "t", "c", WHO, "K7Q2MX", "opened", "policy", "Run it?")
POLICY = PolicyRecord("2026-01-01T00:00:00.000Z", "loaded", "r1")
RESULT = ResultRecord("2026-01-01T00:00:00.000Z", "t", "c", WHO, "call_1", "fetch_url", "redact")


def test_tickets_and_results_are_counted() -> None:
    metrics = Metrics().fold(TICKET, TICKET, RESULT, POLICY)
    assert metrics['callgate_tickets_total{event="opened",by="policy"}'] == 2
    assert metrics['callgate_results_total{tool="fetch_url",effect="redact"}'] == 1


def test_requests_with_drifted_definitions_are_counted_by_tool(exchange) -> None:
    drifted = exchange(admission={"drifted": ("delete_user", "get_user")})
    metrics = Metrics().fold(drifted, drifted, exchange())
    assert metrics['callgate_drifted_definitions_total{tool="delete_user"}'] == 2
    assert metrics['callgate_drifted_definitions_total{tool="get_user"}'] == 2


def exploded() -> RegorusEngine:
    """An engine that had to end a decision."""
    engine = RegorusEngine(PolicySet.of({}))
    engine.counts.outcomes["callgate.call", "ended"] += 1
    return engine


def test_every_metric_is_documented_with_its_labels(decision, exchange) -> None:
    admission = {"drifted": ("delete_user",)}
    metrics = Metrics().fold(decision(), exchange(restored=1, admission=admission), TICKET, RESULT, POLICY)
    count_candidate(Candidate(lambda record: None), metrics.registry)
    count_evaluations(exploded(), metrics.registry)
    exposed = {}
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        exposed[name] = (family.type, labels)
    rows = re.findall(r"^\| `(callgate_\w+)` \| (\w+) \|(.*?)\|", DOCS.read_text(), re.MULTILINE)
    assert {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows} == exposed


def test_the_documented_queries_name_real_metrics(decision, exchange) -> None:
    metrics = Metrics().fold(decision(), exchange(restored=1))
    count_candidate(Candidate(lambda record: None), metrics.registry)
    count_evaluations(exploded(), metrics.registry)
    samples = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    _, _, questions = DOCS.read_text().partition("Some questions")
    asked = set(re.findall(r"callgate_\w+", questions))
    assert asked
    assert asked <= samples
