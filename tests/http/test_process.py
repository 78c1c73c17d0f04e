"""Callgate as the process that operators run: how it starts, how it stops, what it says of faults."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from tests.http.harness import GET, POLICY, RawAnswer, ask, http, post, read_audit

ROOT = Path(__file__).parent.parent.parent
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
BEGUN = b'data: {"id":"x","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"}}]}\n\n'
CALL = (
    b'data: {"id":"x","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_get",'
    b'"type":"function","function":{"name":"get_user","arguments":"{\\"id\\":7}"}}]}}]}\n\n'
)
ENDED = b'data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


class Held:
    """A provider that begins an answer, and ends it when the test says so."""

    def __init__(self, begun: bytes) -> None:
        self.begun, self.go_on = begun, asyncio.Event()

    async def __aenter__(self) -> Held:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + self.begun)
        await self.go_on.wait()
        if not writer.is_closing():
            writer.write(ENDED)
        writer.close()


def config(folder: Path, **sections: Any) -> Path:
    """A file of settings on free ports."""
    (folder / "policy.rego").write_text(POLICY)
    base: dict[str, Any] = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "policies": {"paths": ["policy.rego"]},
        "audit": {"sinks": [{"kind": "jsonl", "path": "audit"}]},
    }
    file = folder / "callgate.yaml"
    file.write_text(yaml.safe_dump(base | sections))
    return file


async def callgate(*arguments: str) -> asyncio.subprocess.Process:
    """The command in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        *arguments,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "400"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int, str]]:
    """``callgate serve``: the process, its port, and the address for operators."""
    process = await callgate("serve", "--config", str(file))
    assert process.stderr is not None
    try:
        async with asyncio.timeout(40):
            said = (await process.stderr.readuntil(b"serves at")) + await process.stderr.readline()
        port, admin = re.findall(rb"http://[^ )]*", said)
        yield process, int(re.findall(rb":(\d+)/v1", port)[0]), admin.decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_open_streams_end_before_the_process_does(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(Held(BEGUN))
        file = config(tmp_path, upstreams=[{"base_url": provider.url}], limits={"drain_s": 20})
        process, port, admin = await stack.enter_async_context(serving(file))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        writer.write(http("POST", "/v1/chat/completions", orjson.dumps(ask(stream=True))))
        begun = await reader.readuntil(BEGUN)

        async def ready() -> bool:
            async with session.get(admin + "/readyz") as answer:
                return answer.status == 200

        async def refused() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return True
            writer.close()
            return False

        assert await ready()
        process.send_signal(signal.SIGTERM)
        await _until(refused)
        async with session.get(admin + "/readyz") as answer:
            assert (answer.status, (await answer.json())["faults"]) == (503, ["stopping"])
        async with session.get(admin + "/healthz") as answer:
            assert answer.status == 200, "a process that drains is alive"
        assert process.returncode is None
        provider.go_on.set()
        answer = RawAnswer(begun + await asyncio.wait_for(reader.read(), 5))
        assert answer.body == BEGUN + ENDED
        writer.close()
        idle.close()
        assert await asyncio.wait_for(process.wait(), 5) == 0
    (record,) = read_audit(tmp_path / "audit", "exchange")
    assert record["outcome"] == "answered"


async def test_what_does_not_end_in_time_is_cut_and_nothing_of_it_is_released(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(Held(BEGUN + CALL))
        file = config(tmp_path, upstreams=[{"base_url": provider.url}], limits={"drain_s": 0.4})
        process, port, _ = await stack.enter_async_context(serving(file))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(http("POST", "/v1/chat/completions", orjson.dumps(ask(stream=True))))
        await reader.readuntil(BEGUN)
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        rest = await asyncio.wait_for(reader.read(), 5)
        assert b"get_user" not in rest
        assert b"[DONE]" not in rest
        assert not rest.endswith(b"0\r\n\r\n"), "a cut answer does not look whole"
        writer.close()
        assert await asyncio.wait_for(process.wait(), 5) == 0
        assert 0.3 < time.monotonic() - stopped < 5
    (record,) = read_audit(tmp_path / "audit", "exchange")
    assert (record["outcome"], record["calls"]) == ("cancelled", 0)
    assert read_audit(tmp_path / "audit", "decision") == []


async def test_a_call_that_was_released_is_on_record_when_the_process_has_ended(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(Held(BEGUN + CALL))
        provider.go_on.set()
        file = config(tmp_path, upstreams=[{"base_url": provider.url}])
        process, port, _ = await stack.enter_async_context(serving(file))
        answers = await asyncio.gather(*(post(port, ask(stream=True)) for _ in range(20)))
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 5) == 0
    assert all(b"get_user" in answer.body for answer in answers)
    decisions = read_audit(tmp_path / "audit", "decision")
    assert [record["gen_ai.tool.call.id"] for record in decisions] == [GET["id"]] * 20
    assert {record["trace_id"] for record in decisions} == {
        answer.headers["x-callgate-trace-id"] for answer in answers
    }


async def _said(*arguments: str) -> tuple[int | None, str]:
    process = await callgate(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), 40)
    return process.returncode, (out + err).decode()


async def test_check_names_every_fault(tmp_path: Path) -> None:
    (tmp_path / "bad.rego").write_text("package callgate.call\n\ndecision := nonsense(1)\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "x.yaml").write_text("effect: none\n")
    file = config(
        tmp_path,
        policies={"paths": ["bad.rego"]},
        tools={"paths": ["tools", "nowhere"]},
        upstreams=[{"name": "a", "base_url": "http://x", "auth": {"env": "NO_SUCH_KEY"}}],
        identity=[{"kind": "api_keys", "path": "keys.yaml"}],
    )
    status, said = await _said("check", "--config", str(file))
    assert status == 1
    for fault in ("bad.rego", "x.yaml", "nowhere", "NO_SUCH_KEY", "keys.yaml"):
        assert fault in said
    lines = [line.replace(f"{tmp_path}/", "") for line in said.splitlines()]
    for key in (
        "tools.paths[1]: nowhere: no such file or directory",
        "upstreams[0].auth: environment variable NO_SUCH_KEY: no secret there (set the variable)",
        "identity[0].path: keys.yaml: No such file or directory (name a file that can be read)",
    ):
        assert any(key in line for line in lines), said
    assert "Traceback" not in said


async def test_check_names_every_key_at_fault(tmp_path: Path) -> None:
    sections = {"listen": {"prot": 1}, "upstreams": [{"base_url": "ftp://x"}]}
    sections |= {"limits": {"drain_s": -1}, "nonsense": 1}
    status, said = await _said("check", "--config", str(config(tmp_path, **sections)))
    assert status == 1
    for part in ("listen.prot", "port", "base_url", "limits.drain_s", "nonsense"):
        assert part in said
    assert "Traceback" not in said


async def test_a_port_that_is_taken_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, said = await _said("serve", "--config", str(config(tmp_path, listen={"port": port})))
    assert status == 1
    cure = "(end what listens there, or set another listen.port)"
    assert f"listen: 127.0.0.1:{port} cannot be listened on: Address already in use {cure}" in said
    assert "Traceback" not in said
