"""``workers: 2`` as an operator runs it: a real command, real processes, one port."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.scripted import ScriptedProvider
from proxy.sinks.chain import verify
from tests.http.harness import GET, POLICY, ask, scripted
from tests.stores import servers
from tests.stores.servers import Server, free_port

START_S = 30.0


@dataclass
class Command:
    """A running ``callgate serve``."""

    process: subprocess.Popen[bytes]
    folder: Path
    port: int
    admin_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def workers(self) -> dict[int, int]:
        """The process of each worker, by the latest start."""
        found = re.findall(r"worker (\d+) serves \(process\s+(\d+)\)", self.log)
        return {int(number): int(process) for number, process in found}

    async def ready(self, within_s: float = START_S) -> None:
        async with asyncio.timeout(within_s), aiohttp.ClientSession() as client:
            while True:
                assert self.process.poll() is None, self.log
                try:
                    async with client.get(f"{self.admin}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    async def get(self, path: str) -> tuple[int, bytes]:
        async with aiohttp.ClientSession() as client, client.get(self.admin + path) as answer:
            return answer.status, await answer.read()

    async def counted(self, name: str) -> float:
        _, text = await self.get("/metrics")
        samples = [s for f in text_string_to_metric_families(text.decode()) for s in f.samples]
        return sum(sample.value for sample in samples if sample.name == name)

    async def ask(self, times: int, model: str = "m") -> list[dict[str, Any]]:
        """Each on a connection of its own, so that the kernel spreads them over the workers."""

        async def one() -> dict[str, Any]:
            async with (
                aiohttp.ClientSession() as client,
                client.post(self.url, json=ask(model=model)) as answer,
            ):
                assert answer.status == 200, await answer.read()
                body: dict[str, Any] = orjson.loads(await answer.read())
                return body

        return list(await asyncio.gather(*(one() for _ in range(times))))

    def served(self) -> dict[int, int]:
        """How many exchanges each worker's log has."""
        return {
            number: sum(
                line.count(b'"kind":"exchange"')
                for file in (self.folder / f"audit/worker-{number}").glob("*.jsonl")
                for line in file.read_bytes().splitlines()
            )
            for number in (1, 2)
        }

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 30)


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@contextmanager
def serving(folder: Path, **sections: Any) -> Iterator[Command]:
    port, admin_port = free_port(), free_port()
    (folder / "policy.rego").write_text(POLICY)
    settings = {
        "listen": {"port": port},
        "admin": {"port": admin_port, "token": {"env": "ADMIN_TOKEN"}},
        "workers": 2,
        "policies": {"paths": ["policy.rego"]},
        "audit": {"sinks": [{"kind": "jsonl", "path": "audit"}]},
        "limits": {"drain_s": 10},
    } | sections
    (folder / "callgate.yaml").write_text(yaml.safe_dump(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "serve", "--config", "callgate.yaml"],
            cwd=folder,
            env={**os.environ, "COLUMNS": "500", "ADMIN_TOKEN": "t0ken"},
            stdout=log,
            stderr=log,
        )
    command = Command(process, folder, port, admin_port)
    try:
        yield command
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        servers.until(lambda: all(gone(pid) for pid in command.workers().values()), 20)


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    with servers.server() as server:
        yield server


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:

    slow = scripted({"text": "at last", "delay_ms": 1000}, model="slow")
    async with ScriptedProvider([scripted({"calls": [GET]}), slow]) as provider:
        yield provider


def shared(provider: ScriptedProvider, redis: Server) -> dict[str, Any]:
    return {
        "upstreams": [{"name": "scripted", "base_url": provider.url}],
        "store": {"kind": "redis", "url": redis.url},
    }


async def test_two_workers_serve_one_port_as_one(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    with serving(tmp_path, **shared(provider, redis)) as command:
        await command.ready()
        first = command.workers()
        assert set(first) == {1, 2}

        answers = await command.ask(60)
        assert all(answer["choices"][0]["message"]["tool_calls"] for answer in answers)
        assert await command.counted("callgate_decisions_total") == 60
        assert await command.counted("callgate_exchange_seconds_count") > 0
        assert await command.counted("callgate_workers") == 2
        _, text = await command.get("/metrics")
        assert {b'worker="1"', b'worker="2"'} <= set(re.findall(rb'worker="\d"', text))

        # Everything else on the admin port is answered by a worker.
        assert (await command.get("/v1/tickets"))[0] == 401
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer t0ken"}) as operator:
            async with operator.get(f"{command.admin}/v1/tickets") as answer:
                assert (answer.status, await answer.json()) == (200, {"tickets": []})
            async with operator.post(f"{command.admin}/v1/tickets/ABCDEF/approve") as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (404, "no_such_ticket")
            async with operator.get(f"{command.admin}/v1/tickets", headers={"Origin": "http://x"}) as answer:
                assert answer.status == 403
        assert (await command.get("/nowhere"))[0] == 404

        # One dies: it comes back, and what it had counted stays.
        os.kill(first[1], signal.SIGKILL)
        async with asyncio.timeout(START_S):
            while command.workers()[1] == first[1]:
                await asyncio.sleep(0.05)
        await command.ready()
        assert await command.counted("callgate_decisions_total") == 60
        assert await command.counted("callgate_worker_restarts_total") == 1
        await command.ask(40)
        assert await command.counted("callgate_decisions_total") == 100

        assert await command.end() == 0
        assert all(gone(process) for process in [*first.values(), *command.workers().values()])
        served = command.served()
        assert sum(served.values()) == 100
        assert min(served.values()) > 0
        assert all(verify(tmp_path / f"audit/worker-{number}").ok for number in (1, 2))


async def test_a_signal_lets_open_requests_of_all_workers_end(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    with serving(tmp_path, **shared(provider, redis)) as command:
        await command.ready()
        asked = asyncio.ensure_future(command.ask(20, "slow"))
        await asyncio.wait_for(provider.received(20), 10)
        ended = asyncio.ensure_future(command.end(signal.SIGINT))
        assert {a["choices"][0]["message"]["content"] for a in await asked} == {"at last"}
        assert await ended == 0
        served = command.served()
        assert sum(served.values()) == 20
        assert min(served.values()) > 0


async def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    with serving(tmp_path, **shared(provider, redis)) as command:
        await command.ready()
        processes = command.workers().values()
        assert len(processes) == 2
        assert not any(map(gone, processes))
        await command.end(signal.SIGKILL)
        async with asyncio.timeout(20):
            while not all(map(gone, processes)):
                await asyncio.sleep(0.05)


async def test_a_worker_that_cannot_start_is_told_of_and_nothing_serves(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    (tmp_path / "audit").write_text("in the way")
    with serving(tmp_path, **shared(provider, redis)) as command:
        assert await asyncio.to_thread(command.process.wait, START_S) == 1
        assert "could not start" in command.log
        assert "audit log" in command.log


async def test_a_second_callgate_does_not_join_the_first(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with serving(tmp_path, **shared(provider, redis), listen={"port": port}) as command:
            assert await asyncio.to_thread(command.process.wait, START_S) == 1
            assert f"listen: 127.0.0.1:{port} cannot be listened on" in command.log
            assert "end what listens there" in command.log


async def test_every_worker_follows_the_keys_and_says_what_is_wrong_with_them(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"{hashlib.sha256(b'cg_1').hexdigest()}: {{id: bot}}\n")
    identity = [{"kind": "api_keys", "path": "keys.yaml"}]
    with serving(tmp_path, identity=identity, **shared(provider, redis)) as command:
        await command.ready()

        async def statuses(key: str) -> set[int]:
            async def one() -> int:
                headers = {"Authorization": f"Bearer {key}"}
                async with (
                    aiohttp.ClientSession(headers=headers) as client,
                    client.post(command.url, json=ask()) as answer,
                ):
                    return answer.status

            return set(await asyncio.gather(*(one() for _ in range(20))))

        assert await statuses("cg_1") == {200}
        keys.write_text(f"{hashlib.sha256(b'cg_2').hexdigest()}: {{id: bot}}\n")
        while await statuses("cg_1") != {401}:
            await asyncio.sleep(0.05)
        assert await statuses("cg_2") == {200}

        keys.write_text("cg_3: {id: bot}\n")
        notes: list[str] = []
        while len(notes) < 2:
            await asyncio.sleep(0.05)
            status, body = await command.get("/readyz")
            notes = orjson.loads(body).get("notes", [])
        assert status == 200
        assert all(
            note.startswith(f"worker {number}: identity: the last good keys are in force")
            for number, note in enumerate(notes, 1)
        )
        assert await statuses("cg_2") == {200}
