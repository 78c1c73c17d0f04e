"""The audit log when things break: crashes, torn lines, full and failing disks, lost files."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.ports import Unavailable
from proxy.sinks.chain import Chain, entries, segments, verify
from proxy.sinks.jsonl import JsonlSink
from proxy.sinks.segments import Segments

ROOT = Path(__file__).parents[2]


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """A limit of the kernel's own on how long a file may get: short writes first, then errors.

    It holds for the whole process, and pytest's own output may go to a file: tests take it back themselves.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_then_recovers_with_every_record_in_order(
    tmp_path, decision, wait_until, caplog
) -> None:
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    taken = 0

    def take() -> bool:
        nonlocal taken
        sink.write(decision(decision_id=str(taken)))
        taken += 1
        return False

    refused = pytest.raises(Unavailable, match=f"cannot be written: .*{os.strerror(errno.EFBIG)}")
    with small_disk(3000):
        with refused:
            wait_until(take)
        assert not sink.healthy
    wait_until(lambda: sink.healthy)
    sink.write(decision(decision_id=str(taken)))
    assert sink.close()
    assert verify(tmp_path).ok
    assert [entry["decision_id"] for entry in entries(tmp_path)] == [str(n) for n in range(taken + 1)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_closing_on_a_full_disk_is_bounded_and_says_what_is_lost(
    tmp_path, decision, wait_until, caplog
) -> None:
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    with small_disk(10):
        for _ in range(5):
            try:
                sink.write(decision())
            except Unavailable:
                break
        wait_until(lambda: not sink.healthy)
        closed = sink.close(timeout_s=0.05)
    assert closed is False
    assert "records are lost" in caplog.text


def test_closing_on_a_hanging_disk_is_bounded(tmp_path, decision, slow_disk, caplog) -> None:
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    sink.write(decision())
    assert slow_disk.asked.wait(10)
    assert sink.close(timeout_s=0.05) is False
    assert "disk hangs" in caplog.text
    slow_disk.go_on.set()


def test_a_writer_that_breaks_shuts_the_door(tmp_path, decision, wait_until, monkeypatch, caplog) -> None:
    def broken(self: Chain, fields: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(Chain, "append", broken)
    sink = JsonlSink(tmp_path, flush_interval_s=0)
    sink.start()
    sink.write(decision())
    wait_until(lambda: not sink.healthy)
    with pytest.raises(Unavailable, match="writer broke"):
        sink.write(decision())
    assert sink.close() is False


def test_a_failed_fsync_writes_its_lines_again_but_once(tmp_path, decision, monkeypatch) -> None:
    failures = iter([OSError(errno.EIO, "I/O error")] * 2)

    def unreliable(fd: int) -> None:
        if failure := next(failures, None):
            raise failure

    monkeypatch.setattr("proxy.sinks.segments.os.fsync", unreliable)
    lines = Segments(tmp_path, 10_000, fsync=True)
    with pytest.raises(OSError, match="I/O"):
        lines.open()
    link = Segments(tmp_path, 10_000, fsync=True)
    chain = Chain(link.open())
    line = chain.append(decision().fields())
    with pytest.raises(OSError, match="I/O"):
        link.append(line)
    link.append(line)
    link.close()
    assert verify(tmp_path).lines == 1
    assert verify(tmp_path).ok


outcomes = st.lists(st.sampled_from(["whole", "short", "refused", "short, then refused"]), max_size=12)


@settings(deadline=None)
@given(outcomes=outcomes, count=st.integers(1, 8), segment_bytes=st.integers(1, 400))
def test_whatever_the_disk_does_each_line_stands_once_and_in_order(
    tmp_path_factory, outcomes: list[str], count: int, segment_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("audit")
    fates, real = iter(outcomes), os.write
    refuse = False

    def write(fd: int, rest: memoryview) -> int:
        nonlocal refuse
        fate = "refused" if refuse else next(fates, "whole")
        refuse = fate == "short, then refused"
        if fate == "refused":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, rest if fate == "whole" else rest[: len(rest) // 2 + 1])

    files = Segments(directory, segment_bytes, fsync=False)
    chain = Chain(files.open())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.sinks.segments.os.write", write)
        for number in range(count):
            line = chain.append({"kind": "test", "time": "", "number": number})
            while not appended(files, line):
                pass
    files.close()
    assert verify(directory).ok
    assert [entry["number"] for entry in entries(directory)] == list(range(count))


def appended(files: Segments, line: bytes) -> bool:
    try:
        files.append(line)
    except OSError:
        return False
    return True


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_log_cut_anywhere_goes_on_from_its_last_whole_line(
    tmp_path_factory, write, decision, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("audit")
    write(directory, [decision(decision_id=str(n)) for n in range(3)])
    [segment] = segments(directory)
    whole = segment.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    garbage = data.draw(st.sampled_from([b"", b"\0" * 50, b"\0" * 50 + b"\n", b"{}\n[]\n"]))
    segment.write_bytes(whole[:cut] + garbage)
    kept = whole[:cut].count(b"\n")
    sound = whole[: whole.rfind(b"\n", 0, cut) + 1]

    sink = JsonlSink(directory)
    sink.start()
    sink.write(decision(decision_id="after"))
    assert sink.close()
    assert verify(directory).ok
    assert [entry["decision_id"] for entry in entries(directory)] == [*map(str, range(kept)), "after"]
    torn = whole[len(sound) : cut] + garbage
    assert (sink.torn.read_bytes() if sink.torn else b"") == torn


def test_a_torn_line_is_reported_and_kept_beside_earlier_ones(tmp_path, write, decision, caplog) -> None:
    for number in (1, 2):
        write(tmp_path, [decision()])
        with segments(tmp_path)[-1].open("ab") as file:
            file.write(b'{"seq":%d,"prev' % number)
    with caplog.at_level(logging.WARNING):
        write(tmp_path, [decision()])
    torn = sorted(path.name for path in tmp_path.glob("*.torn"))
    assert torn == ["audit-000001.1.torn", "audit-000001.2.torn"]
    assert (tmp_path / torn[0]).read_bytes() == b'{"seq":1,"prev'
    assert [torn[n] in record.getMessage() for n, record in enumerate(caplog.records)] == [True, True]
    assert verify(tmp_path).lines == 3
    assert verify(tmp_path).ok


def test_the_chain_goes_on_after_a_segment_that_was_only_begun(tmp_path, write, decision) -> None:
    write(tmp_path, [decision()])
    (tmp_path / "audit-000002.jsonl").write_bytes(b'{"seq":2,')
    write(tmp_path, [decision()])
    assert [path.name for path in segments(tmp_path)] == ["audit-000001.jsonl", "audit-000002.jsonl"]
    assert verify(tmp_path).lines == 2
    assert verify(tmp_path).ok


@pytest.mark.parametrize("loss", ["removed", "moved", "replaced"])
def test_a_segment_taken_away_is_noticed_and_the_lines_go_into_the_next(tmp_path, loss: str) -> None:
    directory = tmp_path / "audit"
    files = Segments(directory, 10_000, fsync=False)
    chain = Chain(files.open())
    gone, kept = (chain.append({"kind": "test", "time": "", "name": name}) for name in ("gone", "kept"))
    files.append(gone)
    [segment] = segments(directory)
    if loss == "removed":
        segment.unlink()
    else:
        segment.rename(tmp_path / "elsewhere")
    if loss == "replaced":
        segment.touch()
    with pytest.raises(OSError, match=r"audit-000001.jsonl was removed or replaced"):
        files.append(kept)
    files.append(kept)
    files.close()
    assert [entry["name"] for entry in entries(directory)] == ["kept"]
    assert verify(directory).broken_at == "audit-000002.jsonl:1"


KILLED = """
import sys
from pathlib import Path
from tests.sinks.conftest import make_decision
from proxy.sinks.jsonl import JsonlSink

sink = JsonlSink(Path(sys.argv[1]), flush_interval_s=0, segment_bytes=50_000)
sink.start()
n = 0
while True:
    if sink.healthy:
        sink.write(make_decision(decision_id=str(n)))
        n += 1
"""


def test_a_killed_process_leaves_a_log_that_goes_on(tmp_path, write, decision, wait_until) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT)
    try:
        wait_until(lambda: len(segments(tmp_path)) > 3)
        with pytest.raises(Unavailable, match="another process writes"):
            JsonlSink(tmp_path).start()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    write(tmp_path, [decision(decision_id="after")])
    verification = verify(tmp_path)
    assert verification.ok
    ids = [entry["decision_id"] for entry in entries(tmp_path)]
    assert ids == [*map(str, range(verification.lines - 1)), "after"]


FORGOTTEN = """
import sys
from pathlib import Path
from tests.sinks.conftest import make_decision
from proxy.sinks.jsonl import JsonlSink

sink = JsonlSink(Path(sys.argv[1]), flush_interval_s=60)
sink.start()
sink.write(make_decision())
"""


def test_a_process_that_ends_without_closing_loses_nothing(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", FORGOTTEN, str(tmp_path)], cwd=ROOT, check=True, timeout=30)
    assert verify(tmp_path).lines == 1
