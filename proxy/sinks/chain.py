"""The audit log's format: JSON Lines bound into one chain, over numbered segments.

Every line starts ``{"seq":N,"prev":"…",``: its number from 1, and the SHA-256 in hex of the bytes of the
line before it, without the newline. Everything here reads; only ``segments`` in this package writes.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from proxy.model import Fault, dumps, loads_frame

GENESIS = "0" * 64
"""What the first line of all has for ``prev``."""

_SEGMENT = re.compile(r"audit-([0-9]{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain stands: the number and the digest of its last line."""

    seq: int = 0
    digest: str = GENESIS


class Chain:
    """Numbers lines and binds each to the one before it."""

    def __init__(self, last: Link) -> None:
        self._seq, self._digest = last.seq, last.digest

    def append(self, fields: Mapping[str, Any]) -> bytes:
        """The next line, with its newline; whatever ``fields`` hold, there is a line for them."""
        body = _encode(fields)
        self._seq += 1
        line = b'{"seq":%d,"prev":"%s",%s' % (self._seq, self._digest.encode(), body[1:])
        self._digest = _digest(line)
        return line + b"\n"


def _digest(line: bytes) -> str:
    """SHA-256 in hex. Of 2 KiB or more at once, hashlib lets go of the interpreter and has to wait for it."""
    digest = sha256()
    for at in range(0, len(line), _PIECE_BYTES):
        digest.update(line[at : at + _PIECE_BYTES])
    return digest.hexdigest()


_PIECE_BYTES = 2047


def _encode(fields: Mapping[str, Any]) -> bytes:
    try:
        return dumps(fields)
    except (TypeError, ValueError, RecursionError):
        # A model may write lone surrogates, a claim may be of any type: no line is lost for that.
        return b"{" + b",".join(_member(name, value) for name, value in fields.items()) + b"}"


def _member(name: str, value: Any) -> bytes:
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        text = json.dumps(f"[not writable as JSON: {exc}]")
    return dumps(name) + b":" + text.encode()


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else repr(value)


def segment_number(path: Path) -> int | None:
    """The number of a segment file, or None where the name is not a segment's."""
    match = _SEGMENT.fullmatch(path.name)
    return int(match[1]) if match else None


def segment_name(number: int) -> str:
    """The file name of a segment; names sort in the order of the chain."""
    return f"audit-{number:06}.jsonl"


def segments(directory: Path) -> list[Path]:
    """The segment files of an audit log, in the order of the chain."""
    numbered = [(number, path) for path in directory.iterdir() if (number := segment_number(path))]
    return [path for _, path in sorted(numbered)]


def last_link(segment: Path) -> tuple[Link | None, int]:
    """The last whole line of a segment, and the offset at which it ends; (None, 0) where there is none."""
    if segment.stat().st_size == 0:
        return None, 0
    with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        end = view.rfind(b"\n") + 1
        while end:
            start = view.rfind(b"\n", 0, end - 1) + 1
            if link := _link(view[start : end - 1]):
                return link, end
            end = start
    return None, 0


def _link(line: bytes) -> Link | None:
    try:
        entry = loads_frame(line)
    except Fault:
        return None
    if isinstance(entry, dict) and isinstance(entry.get("seq"), int) and "prev" in entry:
        return Link(entry["seq"], sha256(line).hexdigest())
    return None


def entries(directory: Path) -> Iterator[dict[str, Any]]:
    """The lines of an audit log, read in order but not verified; raises ``Fault`` at one that is not JSON."""
    for segment in segments(directory):
        with segment.open("rb") as file:
            for line in file:
                yield loads_frame(line)


@dataclass(frozen=True, slots=True)
class Verification:
    """What became of checking a chain: how far it holds, and where it first breaks."""

    lines: int
    """How many lines hold, from the first."""
    head: str
    """The digest of the last line that holds: compare it with one kept elsewhere to see a cut at the end."""
    broken_at: str | None = None
    """``file:line`` of the first line that does not hold."""
    problem: str | None = None

    @property
    def ok(self) -> bool:
        return self.problem is None


def verify(directory: Path) -> Verification:
    """Check the whole chain over all segments, up to its first break; changes nothing."""
    last = Link()
    files = segments(directory)
    for segment in files:
        with segment.open("rb") as file:
            for number, line in enumerate(file, 1):
                if problem := _problem(line, last):
                    return Verification(last.seq, last.digest, f"{segment.name}:{number}", problem)
                last = Link(last.seq + 1, sha256(line[:-1]).hexdigest())
    if not files:
        return Verification(0, GENESIS, problem=f"there is no audit log in {directory}")
    return Verification(last.seq, last.digest)


def _problem(line: bytes, last: Link) -> str | None:
    if not line.endswith(b"\n"):
        return "the line is cut short"
    try:
        entry = loads_frame(line)
    except Fault as exc:
        return f"the line is not a record: {exc}"
    if not isinstance(entry, dict) or "kind" not in entry or "time" not in entry:
        return "the line is not a record: kind or time is missing"
    if not line.startswith(b'{"seq":%d,' % (last.seq + 1)):
        return f"seq should be {last.seq + 1}: a line was changed, removed, added or moved"
    if not line.startswith(b'{"seq":%d,"prev":"%s",' % (last.seq + 1, last.digest.encode())):
        return "prev is not the digest of the line before: that line or this one was changed"
    return None
