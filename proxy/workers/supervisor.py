"""The process that starts workers, serves their admin port, and keeps as many of them as there should be."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.app import Worker, cannot_listen, listen
from proxy.config import ConfigFault, Settings
from proxy.http.tasks import spawn
from proxy.workers.admin import Gathered
from proxy.workers.process import STARTED, order

log = logging.getLogger("callgate.workers")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_STEADY_S = 60.0
"""After so long a life, the next restart waits as little as the first one."""
_GRACE_S = 10.0
"""What a worker has beyond ``limits.drain_s`` to close its log and end."""


@dataclass
class _Running:
    worker: Worker
    process: Process | None = None
    serves: bool = False


class Supervisor(Collector):
    """Runs ``settings.workers`` processes that share ``listen.port``.

    A worker that ends is started again, later each time; one that cannot start at first ends the whole.
    A worker ends when this process does, however it ends.
    """

    def __init__(self, settings: Settings, log_level: str = "info") -> None:
        self._settings = settings
        self._log_level = log_level
        self._stop = asyncio.Event()
        self._restarts = 0
        self._failed: str | None = None
        self._all: list[_Running] = []
        self.admin_url = ""

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises ``ConfigFault`` where it cannot."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        with TemporaryDirectory(prefix="callgate-") as folder, _reserved(self._settings) as settings:
            self._settings = settings
            await self._serve(Path(folder))
        if self._failed is not None:
            raise ConfigFault([self._failed])

    async def _serve(self, folder: Path) -> None:
        count = self._settings.workers
        registry = CollectorRegistry()
        registry.register(self)
        self._gathered = Gathered(count, self._live, registry)
        runner = web.AppRunner(self._gathered.app(), access_log=None)
        host, port = await listen(runner, self._settings.admin.host, self._settings.admin.port)
        self._all = [_Running(Worker(n, folder / f"{n}.sock")) for n in range(1, count + 1)]
        log.info("Callgate %s starts %d workers (admin: %s:%d)", __version__, count, host, port)
        keeping = [spawn(self._keep(running)) for running in self._all]
        try:
            await self._stop.wait()
            log.info("stopping: open requests have %g s to end", self._settings.limits.drain_s)
        finally:
            self._gathered.stopping = True
            await self._end(keeping)
            await self._gathered.close()
            await runner.cleanup()

    def _live(self) -> dict[int, Path]:
        return {r.worker.number: r.worker.admin_socket for r in self._all if r.serves}

    # -- one worker -----------------------------------------------------------------------------

    async def _keep(self, running: _Running) -> None:
        """Run a worker, again and again until everything stops."""
        number, pause_s, served_once = running.worker.number, _FIRST_PAUSE_S, False
        while not self._stop.is_set():
            began = time.monotonic()
            end = await self._run_once(running)
            served_once = served_once or running.serves
            running.serves, running.process = False, None
            await self._gathered.ended(number)
            if self._stop.is_set():
                return
            if not served_once:
                self._failed = f"worker {number} could not start: {end} (its own words stand above)"
                self._stop.set()
                return
            pause_s = _FIRST_PAUSE_S if time.monotonic() - began > _STEADY_S else pause_s
            log.error("worker %d ended: %s; it is started again in %g s", number, end, pause_s)
            await self._pause(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._restarts += 1

    async def _run_once(self, running: _Running) -> str:
        """Start a process and wait for its end; how it ended, in words."""
        number = running.worker.number
        running.worker.admin_socket.unlink(missing_ok=True)
        try:
            process = running.process = await asyncio.create_subprocess_exec(
                # -P: a folder named proxy, wherever this was started, is not this program.
                *(sys.executable, "-P", "-m", "proxy", "worker", str(number), "--log-level", self._log_level),
                stdin=PIPE,
                stdout=PIPE,
                start_new_session=True,  # Ctrl-C reaches this process, which then ends its workers in order
            )
        except OSError as exc:
            return str(exc)
        if self._stop.is_set():
            _signal(process, signal.SIGTERM)
        if await self._begin(process, running.worker):
            running.serves = True
            log.info("worker %d serves (process %d)", number, process.pid)
        status = await process.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"

    async def _begin(self, process: Process, worker: Worker) -> bool:
        """Tell a process what to serve; whether it does. Its standard input stays open while it may live."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(order(self._settings, worker))
            await process.stdin.drain()
        except ConnectionError:
            return False
        return await process.stdout.readline() == STARTED

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _end(self, keeping: list[asyncio.Task[None]]) -> None:
        """Let every worker end its requests; kill those that do not end in time."""
        self._stop.set()
        for running in self._all:
            _signal(running.process, signal.SIGTERM)
        _, late = await asyncio.wait(keeping, timeout=self._settings.limits.drain_s + _GRACE_S)
        for running in self._all:
            if late and running.process is not None:
                log.error("worker %d did not end in time: it is killed", running.worker.number)
                _signal(running.process, signal.SIGKILL)
        await asyncio.gather(*keeping, return_exceptions=True)

    # -- metrics --------------------------------------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """The metrics, for the registry to see that no name is taken twice."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """How many workers serve, and how often one had to be started again."""
        yield GaugeMetricFamily("callgate_workers", "Workers that serve.", value=len(self._live()))
        yield CounterMetricFamily(
            "callgate_worker_restarts", "Workers that ended by themselves.", value=self._restarts
        )


def _signal(process: Process | None, number: signal.Signals) -> None:
    if process is not None and process.returncode is None:
        process.send_signal(number)


@contextmanager
def _reserved(settings: Settings) -> Iterator[Settings]:
    """The settings with the port that the workers will share, kept from everyone else.

    A socket that is bound and does not listen gets no connection, and makes the port known where the
    system chooses it.
    """
    host, port = settings.listen.host, settings.listen.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as alone:
            # First without sharing: otherwise a second Callgate would join the workers of the first.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            chosen = alone.getsockname()
        reserved = socket.socket(family, kind, protocol)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(chosen)
    except OSError as exc:
        raise cannot_listen("listen", host, port, exc) from None
    with reserved:
        yield settings.model_copy(update={"listen": settings.listen.model_copy(update={"port": chosen[1]})})
