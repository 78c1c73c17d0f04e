"""Records to write, and a log that has been written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from proxy.record import DecisionRecord, ExchangeRecord, Record, Step
from proxy.sinks.jsonl import JsonlSink


def make_decision(**changes: Any) -> DecisionRecord:
    values: dict[str, Any] = {
        "decision_id": "d1",
        "time": "2026-01-01T00:00:00.000000Z",
        "trace_id": "t" * 32,
        "conversation_id": "c1",
        "principal": {"id": "alice", "roles": ["dev"], "tenant": "", "claims": {}},
        "protocol": "chat",
        "model": "gpt-4o",
        "tool": "search_users",
        "call_id": "call_1",
        "arguments_written": {"query": "active", "limit": 20},
        "arguments_forwarded": {"query": "active", "limit": 20},
        "verdict": "Allow",
        "effect": "forward",
        "guard": None,
        "reasons": (),
        "trail": (Step("schema", "Allow", 12), Step("policy", "Allow", 44)),
        "policy_revision": "r1",
        "config_digest": "g1",
    }
    return DecisionRecord(**(values | changes))


def make_exchange(**changes: Any) -> ExchangeRecord:
    values: dict[str, Any] = {
        "time": "2026-01-01T00:00:00.000000Z",
        "trace_id": "t" * 32,
        "conversation_id": "c1",
        "principal": {"id": "alice", "roles": ["dev"], "tenant": "", "claims": {}},
        "protocol": "chat",
        "model": "gpt-4o",
        "stream": True,
        "query": "who is active?",
        "status": 200,
        "outcome": "forwarded",
        "rounds": 1,
        "calls": 1,
        "input_tokens": 812,
        "output_tokens": 64,
        "cost_usd": 0.25,
        "latency_s": {"total": 1.25, "upstream": 1.1, "judging": 0.0002, "first_byte": 0.4},
        "decisions": ("d1",),
    }
    return ExchangeRecord(**(values | changes))


def write_log(directory: Path, records: Iterable[Record], **options: Any) -> None:
    sink = JsonlSink(directory, flush_interval_s=0, **options)
    sink.start()
    for record in records:
        sink.write(record)
    assert sink.close()


@pytest.fixture
def decision() -> Callable[..., DecisionRecord]:
    return make_decision


@pytest.fixture
def exchange() -> Callable[..., ExchangeRecord]:
    return make_exchange


@pytest.fixture
def write() -> Callable[..., None]:
    return write_log


def wait(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for what another thread or process does, and sends no event for."""
    return wait


class SlowDisk:
    """A disk that is asked to write and does not come back until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.go_on = Event(), Event()
        self._write = os.write
        monkeypatch.setattr("proxy.sinks.segments.os.write", self._hold)

    def _hold(self, fd: int, rest: memoryview) -> int:
        self.asked.set()
        self.go_on.wait(30)
        return self._write(fd, rest)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> SlowDisk:
    return SlowDisk(monkeypatch)
