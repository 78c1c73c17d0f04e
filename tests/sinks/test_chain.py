"""Verification finds every change; and so does the shell, as the documentation says."""

from __future__ import annotations

import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.model import Fault, dumps
from proxy.sinks.chain import GENESIS, Chain, Link, Verification, last_link, segment_name, segments, verify
from proxy.sinks.reading import record_of

SHELL = re.search(
    r"```sh\n(.*?)```", (Path(__file__).parents[2] / "docs" / "audit.md").read_text(), re.DOTALL
)[1]  # type: ignore[index]


def chained(count: int) -> list[bytes]:
    chain = Chain(Link())
    return [
        chain.append({"kind": "test", "time": "2026-01-01T00:00:00Z", "prev_prev": n, "text": "é\\\n"})
        for n in range(count)
    ]


LINES = chained(7)
CUT = 3


def lay(directory: Path, text: bytes, first: int) -> Path:
    """Write a log of two segments, the first ``first`` bytes in the first."""
    for number, part in ((1, text[:first]), (2, text[first:])):
        (directory / segment_name(number)).write_bytes(part)
    return directory


def lay_lines(directory: Path, lines: list[bytes]) -> Path:
    return lay(directory, b"".join(lines), sum(map(len, lines[:CUT])))


def shell_verify(directory: Path) -> tuple[int, str]:
    run = subprocess.run(["sh", "-c", SHELL], cwd=directory, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stdout.strip()


@pytest.fixture
def fresh(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("audit")


def test_a_sound_log_holds_to_its_last_line(tmp_path) -> None:
    verification = verify(lay_lines(tmp_path, LINES))
    head = sha256(LINES[-1][:-1]).hexdigest()
    assert verification == Verification(7, head)
    assert verification.ok
    assert shell_verify(tmp_path) == (0, f"7 lines hold, the last is {head}")


def test_no_log_at_all_is_not_a_sound_one(tmp_path) -> None:
    verification = verify(tmp_path)
    assert not verification.ok
    assert "no audit log" in (verification.problem or "")
    with pytest.raises(FileNotFoundError):
        verify(tmp_path / "mistyped")


def test_a_log_that_was_only_begun_holds(tmp_path) -> None:
    (tmp_path / segment_name(1)).touch()
    assert verify(tmp_path) == Verification(0, GENESIS)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, sum(map(len, LINES)) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(fresh, position: int, byte: int) -> None:
    text = b"".join(LINES)
    changed = text[:position] + bytes([byte]) + text[position + 1 :]
    first = sum(map(len, LINES[:CUT]))
    sound = verify(lay(fresh(), text, first))
    found = verify(lay(fresh(), changed, first))
    if changed == text:
        assert found == sound
    elif position < len(text) - len(LINES[-1]):
        assert not found.ok
        assert found.broken_at is not None
    else:
        assert found != sound  # of the last line, only its digest tells


@given(where=st.integers(0, len(LINES) - 2))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_removed_line_is_found_where_it_was(fresh, where: int) -> None:
    found = verify(lay_lines(fresh(), LINES[:where] + LINES[where + 1 :]))
    assert not found.ok
    assert found.lines == where
    assert found.broken_at == at(where)


@given(order=st.permutations(range(len(LINES))))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_order_is_found(fresh, order: list[int]) -> None:
    found = verify(lay_lines(fresh(), [LINES[n] for n in order]))
    first = next((n for n, line in enumerate(order) if n != line), None)
    assert found.broken_at == (None if first is None else at(first))


@given(where=st.integers(0, len(LINES) - 1), copied=st.integers(0, len(LINES) - 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_repeated_line_is_found(fresh, where: int, copied: int) -> None:
    assert not verify(lay_lines(fresh(), [*LINES[:where], LINES[copied], *LINES[where:]])).ok


def at(index: int) -> str:
    return f"{segment_name(1)}:{index + 1}" if index < CUT else f"{segment_name(2)}:{index - CUT + 1}"


def forged() -> list[bytes]:
    """The fourth line changed, with a number that fits and the digest of the true third."""
    line = LINES[3].replace(b'"prev_prev":3', b'"prev_prev":9')
    return [*LINES[:3], line, *LINES[4:]]


BROKEN = {
    "changed": (forged(), at(4), "prev is not"),
    "removed": ([*LINES[:2], *LINES[3:]], at(2), "seq should be 3"),
    "swapped": ([LINES[1], LINES[0], *LINES[2:]], at(0), "seq should be 1"),
    "cut short": ([*LINES[:-1], LINES[-1][:-1]], at(6), "cut short"),
    "not JSON": ([*LINES[:5], b"garbage\n"], at(5), "not a record"),
    "an empty line": ([*LINES[:5], b"\n", *LINES[5:]], at(5), "not a record"),
    "not an object": ([*LINES[:5], b"[]\n"], at(5), "not a record"),
    "without a kind": ([Chain(Link()).append({"time": ""})], at(0), "kind or time"),
    "prev within": (
        [*LINES[:3], LINES[3].replace(b'"prev":"', b'"prev":"0","kept":"')],
        at(3),
        "prev is not",
    ),
}


@pytest.mark.parametrize(("lines", "where", "problem"), BROKEN.values(), ids=BROKEN)
def test_a_break_is_named(tmp_path, lines: list[bytes], where: str, problem: str) -> None:
    found = verify(lay_lines(tmp_path, lines))
    assert found.broken_at == where
    assert problem in (found.problem or "")


@pytest.mark.parametrize(
    "name", ["changed", "removed", "swapped", "not JSON", "an empty line", "prev within"]
)
def test_the_shell_finds_it_too(tmp_path, name: str) -> None:
    lines, _, _ = BROKEN[name]
    found = verify(lay_lines(tmp_path, lines))
    assert shell_verify(tmp_path) == (1, f"broken at line {found.lines + 1}")


def test_other_files_are_no_segments_and_order_is_by_number(tmp_path) -> None:
    for name in (
        "audit-1000000.jsonl",
        "audit-999999.jsonl",
        "audit-1.jsonl",
        "audit.lock",
        "audit-000001.1.torn",
    ):
        (tmp_path / name).touch()
    assert [path.name for path in segments(tmp_path)] == ["audit-999999.jsonl", "audit-1000000.jsonl"]


def test_the_last_line_is_found_without_reading_the_whole(tmp_path) -> None:
    path = tmp_path / segment_name(1)
    path.write_bytes(b"".join(LINES) + b'{"torn')
    assert last_link(path) == (Link(7, sha256(LINES[-1][:-1]).hexdigest()), sum(map(len, LINES)))


@pytest.mark.parametrize("lacking", ["decision_id", "trail", "time"])
def test_a_record_that_lacks_a_field_is_a_fault(decision, lacking: str) -> None:
    fields = decision().fields()
    del fields[lacking]
    with pytest.raises(Fault, match="not a whole decision record"):
        record_of(fields)


def test_a_record_is_read_whatever_came_later(decision) -> None:
    assert record_of(decision().fields() | {"invented": 1}) == decision()
    assert record_of({"kind": "checkpoint"}) is None
    assert dumps(record_of(decision().fields()).fields()) == dumps(decision().fields())  # type: ignore[union-attr]
