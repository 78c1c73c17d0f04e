"""Decisions read from an audit log as it stands: one process or several, whole or being written."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.model import Fault
from proxy.record import DecisionRecord, PolicyRecord
from proxy.sinks.chain import Chain, Link, segment_name
from proxy.sinks.walking import decisions


def decision(id: str, time: str) -> DecisionRecord:
    return DecisionRecord(
        decision_id=id,
        time=f"2026-01-01T00:00:{time}Z",
        trace_id="t",
        conversation_id="c",
        principal={},
        protocol="chat",
        model="m",
        tool="x",
        call_id="1",
        arguments_written={"text": 'a line with "kind":"decision" in it'},
        arguments_forwarded=None,
        verdict="Allow",
        effect="forward",
        guard=None,
        reasons=(),
        trail=(),
        policy_revision="r",
        config_digest="d",
    )


def written(folder: Path, *segments: list[tuple[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    chain = Chain(Link())
    for number, rows in enumerate(segments, 1):
        records = [PolicyRecord("2026-01-01T00:00:00Z", "loaded", "r"), *(decision(*row) for row in rows)]
        content = b"".join(chain.append(record.fields()) for record in records)
        (folder / segment_name(number)).write_bytes(content)
    return folder


def ids(path: Path) -> list[str]:
    return [record.decision_id for record in decisions(path)]


def test_segments_are_read_in_order(tmp_path: Path) -> None:
    assert ids(written(tmp_path, [("a", "01"), ("b", "00")], [("c", "02")])) == ["a", "b", "c"]


def test_one_segment_is_read_by_itself(tmp_path: Path) -> None:
    written(tmp_path, [("a", "01")], [("b", "02")])
    assert ids(tmp_path / segment_name(2)) == ["b"]


def test_the_logs_of_workers_are_read_together_by_time(tmp_path: Path) -> None:
    written(tmp_path / "worker-1", [("a", "01"), ("late", "00"), ("c", "03")])
    written(tmp_path / "worker-2", [("b", "02"), ("d", "04")])
    # What stands later in one log is later, whatever its time.
    assert ids(tmp_path) == ["a", "late", "b", "c", "d"]


def test_every_byte_is_told(tmp_path: Path) -> None:
    written(tmp_path, [("a", "01")], [("b", "02")])
    counted: list[int] = []
    assert len(list(decisions(tmp_path, counted.append))) == 2
    assert sum(counted) == sum(file.stat().st_size for file in tmp_path.iterdir())


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    (segment,) = written(tmp_path, [("a", "01"), ("b", "02")]).iterdir()
    segment.write_bytes(segment.read_bytes()[:-20])
    assert ids(tmp_path) == ["a"]


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (segment,) = written(tmp_path, [("a", "01")]).iterdir()
    segment.write_bytes(segment.read_bytes() + b'{"kind":"decision","time":\n')
    with pytest.raises(Fault, match=r"audit-000001\.jsonl:3: the line is not a record"):
        ids(tmp_path)


def test_where_there_is_no_log_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="there is no audit log"):
        ids(tmp_path)
