"""Differences give way to decisions: where the log gets tight, or refuses, they are only counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from proxy.config import Settings
from proxy.parts import trial
from proxy.ports import Unavailable
from proxy.record import DifferenceRecord, PolicyRecord, Record
from proxy.sinks.chain import entries
from proxy.sinks.jsonl import JsonlSink
from proxy.sinks.metrics import MetricsSink
from proxy.sinks.reading import record_of

DIFFERENCE = DifferenceRecord("t", "", "", {}, "callgate.call", "x", "", "looser", {}, {}, "a", "b")
SETTINGS = Settings.model_validate(
    {
        "upstreams": [{"name": "none", "base_url": "http://127.0.0.1:9/v1"}],
        "policies": {"candidate": {"paths": ["x"]}},
    }
)


@dataclass
class Log:
    has_room: bool = True
    refuses: bool = False
    written: list[Record] = field(default_factory=list)

    def write(self, record: Record) -> None:
        if self.refuses:
            raise Unavailable("the disk is full")
        self.written.append(record)


@pytest.mark.parametrize(
    ("log", "written"), [(Log(), 1), (Log(has_room=False), 0), (Log(refuses=True), 0)], ids=repr
)
async def test_a_difference_is_written_where_there_is_room(log: Any, written: int) -> None:
    tried = trial(SETTINGS, log, [log], CollectorRegistry())
    assert tried is not None
    tried.candidate._write(DIFFERENCE)
    assert len(log.written) == written


def test_without_a_candidate_nothing_is_tried() -> None:
    settings = SETTINGS.model_copy(
        update={"policies": SETTINGS.policies.model_copy(update={"candidate": None})}
    )
    log: Any = Log()
    assert trial(settings, log, [log], CollectorRegistry()) is None


def test_a_difference_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    sink.write(DIFFERENCE)
    sink.write(PolicyRecord("t", "loaded", "r"))
    assert sink.close()
    assert [record_of(entry) for entry in entries(tmp_path)] == [DIFFERENCE, PolicyRecord("t", "loaded", "r")]


def test_a_difference_is_no_change_of_the_policies_in_force() -> None:
    registry = CollectorRegistry()
    MetricsSink(registry).write(DIFFERENCE)
    assert registry.get_sample_value("callgate_policy_changes_total", {"event": "differs"}) is None
