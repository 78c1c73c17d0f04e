"""Servers in processes of their own, and what they use: CPU time and memory, read from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parent.parent
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STARTUP_S, _SHUTDOWN_S = 20.0, 5.0


class BenchFault(Exception):
    """The run cannot go on; the message says why."""


class Interrupts:
    """Makes signals end the run as Ctrl-C does, though never between a server's start and its being known."""

    def __init__(self) -> None:
        self._holding = False
        self._came = False

    def install(self) -> None:
        """Take over SIGINT, SIGTERM and SIGHUP."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: object) -> None:
        self._came = True
        if not self._holding:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this block, a signal waits for its end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False

    def check(self) -> None:
        """Raise ``KeyboardInterrupt`` for a signal that came while it was held."""
        if self._came:
            raise KeyboardInterrupt


INTERRUPTS = Interrupts()


class Server:
    """A server process: started on entering, and ended, by its id, on leaving however that comes about."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        environ: Mapping[str, str] | None = None,
        program: str = sys.executable,
    ) -> None:
        self.name, self.port = name, port
        self._command = [program, *command]
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self._errors = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches this process, which then ends the servers in order.
        with INTERRUPTS.held():
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )
        try:
            INTERRUPTS.check()
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is entered first"
        return self._process.pid

    def stop(self) -> None:
        """Ask the process to end; kill it where it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        with INTERRUPTS.held():
            process.terminate()
            try:
                process.wait(_SHUTDOWN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._errors.close()

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _STARTUP_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise BenchFault(f"{self.name} ended at once:\n{self.complaints()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise BenchFault(f"{self.name} does not listen after {_STARTUP_S:g} s:\n{self.complaints()}")

    def complaints(self) -> str:
        """The end of what the process wrote to its standard error."""
        self._errors.seek(0)
        return self._errors.read()[-4000:].decode(errors="replace")

    def cpu_s(self) -> float:
        """CPU seconds, user and system, of all of the process's threads since it began."""
        # Linux: the clock of another process (clock_getcpuclockid(3)), in nanoseconds where
        # /proc/PID/stat has hundredths of a second.
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
