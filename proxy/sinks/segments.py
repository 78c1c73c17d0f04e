"""The files of one audit log: locked for one writer, appended to in whole lines, rotated, mended."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from proxy.ports import Unavailable
from proxy.sinks.chain import Link, last_link, segment_name, segment_number, segments

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Segments:
    """The directory of one audit log, held by this process alone from ``open`` to ``close``."""

    def __init__(self, directory: Path, segment_bytes: int, fsync: bool) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._lock = self._fd = -1
        self._number = self._size = 0
        self._file: os.stat_result | None = None
        """Which file it is that is written."""
        self._unclean = False
        self.torn: Path | None = None
        """Where ``open`` set aside what a crash had left behind the last whole line."""

    def open(self) -> Link:
        """Lock the directory, set a torn end aside, and say where the chain stands.

        Raises ``Unavailable`` where another process writes here, ``OSError`` where files cannot be used.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            return self._resume()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> int:
        fd = os.open(
            self._directory / "audit.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Unavailable(
                f"another process writes the audit log in {self._directory}:"
                " two would break its chain, so give each process a directory of its own"
            ) from None
        return fd

    def _resume(self) -> Link:
        files = segments(self._directory)
        if not files:
            self._open_next()
            return Link()
        newest = files[-1]
        link, end = last_link(newest)
        self._number = segment_number(newest) or 0
        self._fd = os.open(newest, _APPEND)
        self._size, self._file = end, os.fstat(self._fd)
        if self._file.st_size > end:
            self._set_aside(newest, end)
        return link or self._last_of(files[:-1])

    def _last_of(self, files: list[Path]) -> Link:
        for segment in reversed(files):
            link, _ = last_link(segment)
            if link:
                return link
        return Link()

    def _set_aside(self, segment: Path, end: int) -> None:
        with segment.open("rb") as file:
            file.seek(end)
            rest = file.read()
        torn = _free_name(segment)
        fd = os.open(torn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(rest)
            file.flush()
            os.fsync(fd)
        # Only once it is safe elsewhere: a crash in between sets it aside twice, and loses nothing.
        os.ftruncate(self._fd, end)
        self.torn = torn

    @property
    def room(self) -> int:
        """How many bytes the segment that is written next still takes; always more than none."""
        left = self._segment_bytes - self._size
        return left if left > 0 else self._segment_bytes

    def append(self, lines: bytes) -> None:
        """Append whole lines; after an ``OSError``, the same lines may be given again and stand once."""
        if self._unclean:
            self._mend()
        if self._size >= self._segment_bytes:
            self._open_next()
        self._unclean = True
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        if self._fsync:
            os.fsync(self._fd)
        if not self._in_place():
            raise OSError(f"{segment_name(self._number)} was removed or replaced while it was written")
        self._size += len(lines)
        self._unclean = False

    def _mend(self) -> None:
        """Drop what the failed append may have left, so that no line stands half or twice."""
        os.ftruncate(self._fd, self._size)
        if not self._in_place():
            self._open_next()
        self._unclean = False

    def _in_place(self) -> bool:
        try:
            named = os.stat(self._directory / segment_name(self._number), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return self._file is not None and os.path.samestat(named, self._file)

    def _open_next(self) -> None:
        taken = [segment_number(path) or 0 for path in segments(self._directory)]
        number = max([self._number, *taken]) + 1
        fd = os.open(self._directory / segment_name(number), _APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._number, self._size, self._file = fd, number, 0, os.fstat(fd)
        if self._fsync:
            self._sync_directory()

    def _sync_directory(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let the directory go, to be written by another process."""
        for fd in (self._fd, self._lock):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock = -1


def _free_name(segment: Path) -> Path:
    count = 1
    while (path := segment.with_name(f"{segment.stem}.{count}.torn")).exists():
        count += 1
    return path
