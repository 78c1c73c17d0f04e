"""A real Callgate on a port of its own, before a provider that plays scripts; and plain sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from proxy.app import App, build
from proxy.config import Settings
from proxy.scripted import Script
from proxy.sinks.chain import verify

POLICY = """
package callgate.call

decision := {"effect": "deny", "reasons": [sprintf("%s is not allowed.", [input.call.name])]} if {
	startswith(input.call.name, "drop")
} else := {"effect": "allow"}
"""
"""Whatever is named ``drop…`` is denied, everything else allowed."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"id": {"type": "integer"}, "note": {"type": "string"}},
                "required": ["id"],
            },
        },
    }
    for name in ("get_user", "drop_table")
]
GET: dict[str, Any] = {"name": "get_user", "arguments": {"id": 7}, "id": "call_get"}
DROP: dict[str, Any] = {"name": "drop_table", "arguments": {"id": 7}, "id": "call_drop"}


def ask(**members: Any) -> dict[str, Any]:
    """A chat request of one user message that offers the tools; further members by keyword."""
    return {"model": "m", "messages": [{"role": "user", "content": "go"}], "tools": TOOLS} | members


@dataclass
class Callgate:
    """A running Callgate, its provider and its audit log."""

    app: App
    provider: Any
    audit: Path
    stopped: bool = False

    @property
    def url(self) -> str:
        return self.app.url

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    @property
    def port(self) -> int:
        return int(self.root.rpartition(":")[2])

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.app.stop()

    async def records(self, kind: str) -> list[dict[str, Any]]:
        """Stop, and read the audit log: whole, in order, and unbroken."""
        await self.stop()
        return read_audit(self.audit, kind)

    async def exchange(self) -> dict[str, Any]:
        """The record of the one exchange that there was."""
        (record,) = await self.records("exchange")
        return record


def read_audit(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of a kind; the log's chain must hold."""
    assert verify(folder).ok
    lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_bytes().splitlines()]
    return [record for line in lines if (record := orjson.loads(line))["kind"] == kind]


def settings(provider_url: str, folder: Path, **sections: Any) -> Settings:
    """Settings on free ports with a policy of the tests' own; ``upstream`` are keys of the one upstream."""
    policy = folder / "policy.rego"
    policy.write_text(POLICY)
    upstream = {"name": "scripted", "base_url": provider_url} | sections.pop("upstream", {})
    base: dict[str, Any] = {
        "listen": {"port": 0},
        "admin": {"port": 0},
        "upstreams": [upstream],
        "policies": {"paths": [str(policy)]},
        "audit": {"sinks": [{"kind": "jsonl", "path": str(folder / "audit")}]},
    }
    return Settings.model_validate(base | sections)


async def start(
    provider: Any,
    folder: Path,
    environ: Mapping[str, str] | None = None,
    **sections: Any,
) -> Callgate:
    """Build and start; ``sections`` are those of the settings."""
    folder.mkdir(exist_ok=True)
    app = build(settings(provider.url, folder, **sections), environ or {})
    await app.start()
    return Callgate(app, provider, folder / "audit")


def scripted(*turns: Mapping[str, Any], model: str = "m", **options: Any) -> Script:
    """A script for a model."""
    return Script.of(model, turns, **options)


# -- plain sockets


@dataclass(frozen=True)
class RawAnswer:
    """An HTTP answer as its bytes, and as what they say."""

    raw: bytes

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def body(self) -> bytes:
        body = self.raw.partition(b"\r\n\r\n")[2]
        return dechunked(body) if self.headers.get("transfer-encoding") == "chunked" else body

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = orjson.loads(self.body)["error"]
        return error


def dechunked(body: bytes) -> bytes:
    """A chunked body's content; a body that is cut off is an error."""
    content, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        if (length := int(body[at:end], 16)) == 0:
            return b"".join(content)
        at = end + 2 + length + 2
        assert body[at - 2 : at] == b"\r\n"
        content.append(body[end + 2 : at - 2])


def http(method: str, target: str, body: bytes = b"", headers: Sequence[str] = ()) -> bytes:
    """The bytes of one request on a connection of its own."""
    lines = [f"{method} {target} HTTP/1.1", "Host: callgate", "Connection: close", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def talk(port: int, *pieces: bytes, timeout_s: float = 5) -> bytes:
    """Write to a new connection, and read until it is closed."""
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


async def post(port: int, body: Mapping[str, Any] | bytes, *headers: str) -> RawAnswer:
    """Post to chat completions over a plain socket."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    request = http("POST", "/v1/chat/completions", raw, ("Content-Type: application/json", *headers))
    return RawAnswer(await talk(port, request))


@dataclass
class RawProvider:
    """A provider that answers each request with given bytes, whatever they are, then closes or stays."""

    answers: Sequence[bytes]
    keep: bool = False
    """Keep the connection open for another request; the last answer is given again."""
    close_at: int | None = None
    """The number of the request at which the connection is closed all the same, from 1."""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    async def __aenter__(self) -> RawProvider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while request := await self._read(reader):
                self.requests.append(request)
                writer.write(self.answers[min(len(self.requests), len(self.answers)) - 1])
                await writer.drain()
                if not self.keep or len(self.requests) == self.close_at:
                    return
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
        return head + body
