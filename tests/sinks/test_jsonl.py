"""The audit log while all is well: lines, chain, rotation, restarts, bounds."""

from __future__ import annotations

import json
import math
import os
import stat
from functools import reduce
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.model import loads
from proxy.ports import Unavailable
from proxy.sinks.chain import GENESIS, entries, segments, verify
from proxy.sinks.jsonl import JsonlSink
from proxy.sinks.reading import record_of


def lines_of(directory: Path) -> list[bytes]:
    return b"".join(path.read_bytes() for path in segments(directory)).splitlines()


def test_every_line_is_numbered_and_bound_to_the_one_before(tmp_path, write, decision, exchange) -> None:
    write(tmp_path, [decision(), exchange(), decision(decision_id="d2")])
    lines = lines_of(tmp_path)
    read = [loads(line) for line in lines]
    assert [entry["seq"] for entry in read] == [1, 2, 3]
    assert read[0]["prev"] == GENESIS
    for line, after in pairwise(zip(lines, read, strict=True)):
        assert after[1]["prev"] == sha256(line[0]).hexdigest()
    assert [list(entry)[:2] for entry in read] == [["seq", "prev"]] * 3
    assert [entry["kind"] for entry in read] == ["decision", "exchange", "decision"]
    assert read[0] == {"seq": 1, "prev": GENESIS} | json.loads(json.dumps(decision().fields()))


def test_records_are_read_back_as_they_were_written(tmp_path, write, decision, exchange) -> None:
    records = [decision(reasons=("no",), guard="policy"), exchange(error="cut", restored=2)]
    write(tmp_path, records)
    assert [record_of(entry) for entry in entries(tmp_path)] == records


ODD = {
    "a lone surrogate": "\ud83d",
    "a lone surrogate, deep": {"a": ["\udc00" * 3]},
    "an integer beyond 64 bits": 10**40,
    "not a number": math.nan,
    "not a number beside a lone surrogate": [math.nan, "\ud800"],
    "a line break": "a\nb\r\u2028c",
    "a NUL": "\x00",
    "deep nesting": json.loads("[" * 600 + "]" * 600),
    "a set": {1},
    "bytes": b"\xff",
    "a read-only mapping": MappingProxyType({"k": "v"}),
    "a key that is no text": {(1, 2): "\ud800"},
    "nesting too deep to be written": reduce(lambda value, _: [value], range(20_000), [1]),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_whatever_a_record_holds_there_is_a_line_for_it(tmp_path, write, decision, odd) -> None:
    write(tmp_path, [decision(), decision(arguments_written=odd, facts={"fact": odd}), decision()])
    verification = verify(tmp_path)
    assert verification.ok, verification
    assert verification.lines == 3
    assert [entry["decision_id"] for entry in entries(tmp_path)] == ["d1"] * 3


def test_a_record_that_cannot_be_told_does_not_end_the_log(tmp_path, write, decision) -> None:
    def broken() -> None:
        raise RuntimeError("a defect of Callgate's own")

    write(tmp_path, [decision(), decision(facts={"policy": broken}), decision()])
    told = [loads(line) for line in lines_of(tmp_path)]
    assert [line["kind"] for line in told] == ["decision"] * 3
    assert [line.get("error") for line in told] == [None, "it could not be told", None]
    assert verify(tmp_path).ok


def test_a_lone_surrogate_is_kept_as_it_was(tmp_path, write, decision) -> None:
    write(tmp_path, [decision(arguments_written='{"a": "\ud83d"}')])
    assert next(entries(tmp_path))["arguments_written"] == '{"a": "\ud83d"}'


def test_the_chain_goes_on_across_segments_and_restarts(tmp_path, write, decision) -> None:
    for _ in range(5):
        write(tmp_path, [decision()] * 7, segment_bytes=2000)
    names = [path.name for path in segments(tmp_path)]
    assert len(names) > 5
    assert names == sorted(names)
    assert names[0] == "audit-000001.jsonl"
    assert verify(tmp_path).lines == 35
    assert verify(tmp_path).ok


def test_a_segment_ends_with_the_line_that_fills_it(tmp_path, write, decision) -> None:
    write(tmp_path, [decision()] * 40, segment_bytes=3000)
    line = len(lines_of(tmp_path)[0]) + 5
    *full, _ = (path.stat().st_size for path in segments(tmp_path))
    assert len(full) > 3
    assert all(3000 <= size < 3000 + line for size in full)


def test_under_load_many_records_share_a_write(tmp_path, decision, monkeypatch) -> None:
    sizes: list[int] = []
    real = os.write

    def counted(fd: int, rest: memoryview) -> int:
        sizes.append(len(rest))
        return real(fd, rest)

    monkeypatch.setattr("proxy.sinks.segments.os.write", counted)
    sink = JsonlSink(tmp_path, flush_interval_s=60)
    sink.start()
    for _ in range(1000):
        sink.write(decision())
    assert sink.close()
    assert verify(tmp_path).lines == 1000
    assert len(sizes) < 20


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rounds=st.lists(st.integers(0, 30), max_size=4),
    segment_bytes=st.integers(1, 20_000),
)
def test_any_sizes_and_restarts_give_one_chain(
    tmp_path_factory, write, decision, rounds: list[int], segment_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("audit")
    expected = [f"{r}.{n}" for r, count in enumerate(rounds) for n in range(count)]
    for r, count in enumerate(rounds):
        records = [decision(decision_id=f"{r}.{n}") for n in range(count)]
        write(directory, records, segment_bytes=segment_bytes)
    assert [entry["decision_id"] for entry in entries(directory)] == expected
    if expected:
        assert verify(directory).ok


def test_a_full_queue_refuses(tmp_path, decision, slow_disk) -> None:
    sink = JsonlSink(tmp_path, max_queue=3, flush_interval_s=0)
    sink.start()
    sink.write(decision())
    assert slow_disk.asked.wait(10)
    for _ in range(3):
        assert sink.healthy
        sink.write(decision())
    assert not sink.healthy
    with pytest.raises(Unavailable, match="queue is full"):
        sink.write(decision())
    slow_disk.go_on.set()
    assert sink.close()
    assert verify(tmp_path).lines == 4


def test_half_of_the_queue_is_kept_for_what_has_to_be_recorded(tmp_path, decision, slow_disk) -> None:
    sink = JsonlSink(tmp_path, max_queue=4, flush_interval_s=0)
    assert not sink.has_room  # not open yet
    sink.start()
    sink.write(decision())
    assert slow_disk.asked.wait(10)
    sink.write(decision())
    assert sink.has_room
    sink.write(decision())
    assert not sink.has_room
    assert sink.healthy
    slow_disk.go_on.set()
    assert sink.close()
    assert not sink.has_room


def test_records_gather_for_the_interval_but_half_a_queue_is_not_waited_with(
    tmp_path, decision, wait_until
) -> None:
    sink = JsonlSink(tmp_path, max_queue=10, flush_interval_s=3600)
    sink.start()
    for _ in range(4):
        sink.write(decision())
    assert verify(tmp_path).lines == 0
    sink.write(decision())
    wait_until(lambda: verify(tmp_path).lines == 5)
    assert sink.close()


def test_a_record_is_written_within_the_interval(tmp_path, decision, wait_until) -> None:
    sink = JsonlSink(tmp_path)
    sink.start()
    sink.write(decision())
    wait_until(lambda: verify(tmp_path).lines == 1)
    assert sink.close()


def test_a_sink_that_is_not_open_refuses(tmp_path, decision) -> None:
    sink = JsonlSink(tmp_path)
    assert not sink.healthy
    with pytest.raises(Unavailable, match="not open"):
        sink.write(decision())
    assert sink.close()


def test_a_closed_sink_refuses(tmp_path, decision) -> None:
    sink = JsonlSink(tmp_path)
    sink.start()
    assert sink.healthy
    assert sink.close()
    assert not sink.healthy
    with pytest.raises(Unavailable, match="closed"):
        sink.write(decision())
    assert sink.close()


def test_nobody_else_can_read_the_log(tmp_path, write, decision) -> None:
    directory = tmp_path / "new" / "audit"
    write(directory, [decision()])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_two_writers_do_not_share_a_log(tmp_path, write, decision) -> None:
    first = JsonlSink(tmp_path)
    first.start()
    second = JsonlSink(tmp_path)
    with pytest.raises(Unavailable, match="another process writes"):
        second.start()
    with pytest.raises(Unavailable, match="not open"):
        second.write(decision())
    assert first.close()
    write(tmp_path, [decision()])


def test_a_directory_that_cannot_be_used_is_named(tmp_path) -> None:
    (tmp_path / "file").touch()
    sink = JsonlSink(tmp_path / "file")
    with pytest.raises(Unavailable, match=str(tmp_path / "file")):
        sink.start()


def test_a_segment_that_is_a_link_is_not_followed(tmp_path) -> None:
    (tmp_path / "precious").write_text("mine")
    directory = tmp_path / "audit"
    directory.mkdir()
    (directory / "audit-000001.jsonl").symlink_to(tmp_path / "precious")
    with pytest.raises(Unavailable, match=r"opened: .*audit-000001\.jsonl: [^\[]* \(name a folder"):
        JsonlSink(directory).start()
    assert (tmp_path / "precious").read_text() == "mine"
