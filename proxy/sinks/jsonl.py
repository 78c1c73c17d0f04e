"""The audit log: records into hash-chained JSON Lines, off the request's path, never silently lost."""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from proxy.ports import Unavailable
from proxy.record import Record
from proxy.sinks.chain import Chain, Link
from proxy.sinks.segments import Segments

log = logging.getLogger(__name__)

# Writing a batch holds the interpreter for about a millisecond; write(2) then lets the event loop in.
_BATCH_LINES = 128
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 5.0


class JsonlSink:
    """A ``Sink`` that keeps records in ``directory``, as docs/audit.md describes.

    ``write`` only queues, at most ``max_queue`` records. One thread writes what has gathered, after at
    most ``flush_interval_s``: a killed process loses no more than that. With ``fsync`` each batch is on
    the disk before the next. While the disk refuses, records are held in order and tried again, and
    ``write`` raises ``Unavailable``.
    """

    def __init__(
        self,
        directory: Path,
        max_queue: int = 10_000,
        segment_bytes: int = 64 * 1024 * 1024,
        flush_interval_s: float = 0.05,
        fsync: bool = False,
    ) -> None:
        self._segments = Segments(directory, segment_bytes, fsync)
        self._directory = directory
        self._max_queue = max_queue
        self._hurry_at = max(1, max_queue // 2)
        self._flush_interval_s = flush_interval_s
        self._queue: deque[Record] = deque()
        self._chain = Chain(Link())
        self._refusal: str | None = "the audit log is not open"
        self._gate = Lock()
        """Held where a record is taken and where ``_refusal`` changes: none is taken after the last drain."""
        self._closing, self._give_up = Event(), Event()
        self._nudge = Lock()
        """Released to wake the thread, which waits by taking it: an ``Event`` would take the interpreter from
        the event loop several times for one batch, and each time is a fight for it."""
        self._nudge.acquire()
        self._is_idle = False
        self._complete = True
        self._thread: Thread | None = None

    @property
    def healthy(self) -> bool:
        """Whether a record written now would be taken."""
        return self._refusal is None and len(self._queue) < self._max_queue

    @property
    def has_room(self) -> bool:
        """Whether what need not be recorded may be: half of the queue is kept for the rest."""
        return self._refusal is None and len(self._queue) < self._hurry_at

    @property
    def torn(self) -> Path | None:
        """The file in which ``start`` set aside the torn end that a crash had left, if there was one."""
        return self._segments.torn

    def start(self) -> None:
        """Open the log and go on with its chain; raises ``Unavailable``, with the cause, where it cannot."""
        try:
            self._chain = Chain(self._segments.open())
        except OSError as exc:
            why = exc.strerror or str(exc)
            if exc.filename is not None and Path(exc.filename) != self._directory:
                why = f"{exc.filename}: {why}"
            cure = "name a folder that Callgate can write in audit.sinks[].path"
            raise Unavailable(f"the audit log in {self._directory} cannot be opened: {why} ({cure})") from exc
        if self.torn is not None:
            log.warning(
                "the audit log ended in a torn line, as after a crash: it was set aside in %s", self.torn
            )
        self._refusal = None
        self._thread = Thread(target=self._run, name="audit-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, record: Record) -> None:
        """Take a record without waiting; raises ``Unavailable`` when it cannot be kept."""
        queue = self._queue
        with self._gate:
            if self._refusal is not None:
                raise Unavailable(self._refusal)
            if len(queue) >= self._max_queue:
                raise Unavailable("the audit log's queue is full: the disk does not keep up")
            queue.append(record)
            if self._is_idle or len(queue) == self._hurry_at:
                self._wake()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Take no more, write what is held, within ``timeout_s``; False where records were lost."""
        with self._gate:
            self._refusal = "the audit log is closed"
            self._closing.set()
            self._wake()
        thread, self._thread = self._thread, None
        if thread is None:
            return self._complete
        thread.join(timeout_s)
        self._give_up.set()
        thread.join(_FIRST_PAUSE_S * 10)
        atexit.unregister(self.close)
        if thread.is_alive():  # the disk hangs inside a write: its files cannot be closed under it
            log.error("the audit log's disk hangs: %d queued records are lost", len(self._queue))
            return False
        self._segments.close()
        return self._complete

    def _wake(self) -> None:
        """Let the thread go on; with the gate held."""
        self._is_idle = False
        if self._nudge.locked():
            self._nudge.release()

    def _run(self) -> None:
        try:
            closing = False
            while not closing:
                self._wait()
                closing = self._closing.is_set()  # read before the last drain: nothing is taken after it
                self._drain()
        except Exception:
            self._complete = False
            self._refuse("the audit log's writer broke")
            log.exception("the audit log's writer broke: nothing is taken until a restart")

    def _wait(self) -> None:
        """Wait for a record, and let more gather into one write."""
        with self._gate:
            self._is_idle = not self._queue and not self._closing.is_set()
            idle = self._is_idle
        if idle:
            self._nudge.acquire()
        if len(self._queue) < self._hurry_at and not self._closing.is_set():
            self._nudge.acquire(timeout=self._flush_interval_s)

    def _drain(self) -> None:
        while self._queue:
            lines = self._next_lines()
            if not self._append(b"".join(lines)):
                self._complete = False
                lost = len(lines) + len(self._queue)
                log.error("the audit log was closed while its disk failed: %d records are lost", lost)
                return

    def _next_lines(self) -> list[bytes]:
        lines: list[bytes] = []
        room = self._segments.room
        while self._queue and room > 0 and len(lines) < _BATCH_LINES:
            line = self._chain.append(_fields(self._queue.popleft()))
            lines.append(line)
            room -= len(line)
        return lines

    def _append(self, lines: bytes) -> bool:
        """Append, however often it takes; False where ``close`` gave up first."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                self._segments.append(lines)
            except OSError as exc:
                self._refuse(f"the audit log cannot be written: {exc}")
            else:
                self._admit()
                return True
            if self._give_up.is_set():
                return False
            self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _pause(self, pause_s: float) -> None:
        if self._closing.is_set():
            self._give_up.wait(_FIRST_PAUSE_S)
        else:
            self._closing.wait(pause_s)

    def _refuse(self, reason: str) -> None:
        with self._gate:
            news = self._refusal is None
            if news:
                self._refusal = reason
        if news:
            log.error("%s: records are refused", reason)

    def _admit(self) -> None:
        if self._refusal is None or self._closing.is_set():
            return
        with self._gate:
            if not self._closing.is_set():
                self._refusal = None
        log.warning("the audit log can be written again")


def _fields(record: Record) -> Mapping[str, Any]:
    """A record as JSON; of one that cannot be told, that there was one: the log goes on."""
    try:
        return record.fields()
    except Exception:
        log.exception("a record could not be told, and stands in the audit log without what it says")
        return {"kind": record.kind, "time": record.time, "error": "it could not be told"}
