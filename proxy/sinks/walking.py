"""The decisions in an audit log, read as they stand, one at a time: of one process, or of several workers."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from pathlib import Path

from proxy.model import Fault, loads_frame
from proxy.record import DecisionRecord
from proxy.sinks.chain import segments
from proxy.sinks.reading import record_of

_KIND = b'"kind":"decision"'


def logs(path: Path) -> list[list[Path]]:
    """The segments of each log in a folder: of one process, and of workers in folders of their own.

    A file is a segment by itself. Raises ``Fault`` where there is no log.
    """
    if path.is_file():
        return [[path]]
    folders = [path, *sorted(path.glob("worker-*"))] if path.is_dir() else []
    found = [files for folder in folders if folder.is_dir() and (files := segments(folder))]
    if not found:
        raise Fault(f"there is no audit log in {path}")
    return found


def decisions(path: Path, read: Callable[[int], None] = lambda count: None) -> Iterator[DecisionRecord]:
    """The decisions of all logs in a folder, in the order of their times; ``read`` is told of bytes read.

    Nothing is verified. Raises ``Fault`` at a line that is no record; a last line that is still being
    written is left out.
    """
    if len(found := logs(path)) == 1:
        yield from _decisions(found[0], read)
        return
    # Several processes write at the same time; a log by itself is in order, and stays so.
    for _, _, record in heapq.merge(*(_timed(number, files, read) for number, files in enumerate(found))):
        yield record


def _timed(
    log: int, files: list[Path], read: Callable[[int], None]
) -> Iterator[tuple[tuple[str, int, int], int, DecisionRecord]]:
    latest = ""
    for number, record in enumerate(_decisions(files, read)):
        latest = max(latest, record.time)  # a record has the time at which its request came in
        yield (latest, log, number), log, record


def _decisions(files: list[Path], read: Callable[[int], None]) -> Iterator[DecisionRecord]:
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                read(len(line))
                if _KIND in line and line.endswith(b"\n"):
                    yield from _decision(line, f"{file}:{number}")


def _decision(line: bytes, place: str) -> Iterator[DecisionRecord]:
    try:
        entry = loads_frame(line)
        record = record_of(entry) if isinstance(entry, dict) else None
    except Fault as exc:
        raise Fault(f"{place}: the line is not a record: {exc}") from None
    if isinstance(record, DecisionRecord):
        yield record
