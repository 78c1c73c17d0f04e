"""Real Redis servers for the tests: private, on loopback, without persistence, and ended with the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis
from redis.exceptions import RedisError

ROOT = Path(__file__).parents[2]
START_S = 10.0
SLOTS = 16384


@cache
def binary() -> str:
    """The server's path. Without one the tests fail: shared state would go untested unseen."""
    found = subprocess.run(
        ["sh", str(ROOT / "scripts/redis")], capture_output=True, text=True, timeout=300, check=False
    )
    if found.returncode:
        pytest.fail(found.stderr, pytrace=False)
    return found.stdout.strip()


def free_port(below: int = 65536) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < below:
            return port


def until(done, within_s: float = START_S) -> None:
    """Wait for a condition of another process."""
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, f"not within {within_s:g} s"
        time.sleep(0.01)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Server:
    """One server, which can be stopped, killed and started again on its port."""

    def __init__(self, directory: Path, *options: str, port: int | None = None, password: str = "") -> None:
        self.port = port or free_port()
        self.directory, self.options, self.password = directory, options, password
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, from the main thread: the server ends with the thread that started it."""
        port = () if "--port" in self.options else ("--port", str(self.port))
        with (self.directory / f"{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), *self.arguments(), *port, *self.options],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        until(self.answers)

    def arguments(self) -> tuple[str, ...]:
        auth = ("--requirepass", self.password) if self.password else ()
        return ("--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *auth)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / f"{self.port}.log").read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False

    def client(self) -> Redis:
        return Redis(port=self.port, password=self.password or None, socket_timeout=START_S, protocol=2)

    def pause(self) -> None:
        """Leave its connections open, and answer nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@contextmanager
def server(*options: str, password: str = "", port: int | None = None) -> Iterator[Server]:
    with TemporaryDirectory(prefix="callgate-redis-") as directory:
        one = Server(Path(directory), *options, password=password, port=port)
        try:
            one.start()
            yield one
        finally:
            one.kill()


@contextmanager
def cluster() -> Iterator[tuple[Server, Server]]:
    """Two nodes, with half of the slots each."""
    with TemporaryDirectory(prefix="callgate-cluster-") as directory:
        nodes = []
        for name in ("one", "two"):
            config = f"{name}.conf"
            options = ("--cluster-enabled", "yes", "--cluster-config-file", config)
            # Its nodes talk with one another on a port of their own, 10 000 above.
            nodes.append(Server(Path(directory), *options, port=free_port(below=55536)))
        try:
            for node in nodes:
                node.start()
            one, two = nodes
            with one.client() as first, two.client() as second:
                first.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS // 2 - 1)
                second.execute_command("CLUSTER ADDSLOTSRANGE", SLOTS // 2, SLOTS - 1)
                first.execute_command("CLUSTER MEET", "127.0.0.1", two.port)
                for client in (first, second):
                    until(lambda client=client: client.cluster("info")["cluster_state"] == "ok")
                    until(lambda client=client: len(client.cluster("slots")) == 2)
            yield one, two
        finally:
            for node in nodes:
                node.kill()
