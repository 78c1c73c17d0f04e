"""A real OPA server as the engine: it decides like the embedded one, and is closed when it is not there."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from proxy.engines.opa import OpaEngine
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.ports import Unavailable
from tests.policies.inputs import call_inputs

ROOT = Path(__file__).parents[2]
POLICIES = ROOT / "policies"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """An OPA server of the test's own."""

    def __init__(
        self, binary: str, *paths: Path, port: int | None = None, options: tuple[str, ...] = ()
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        address = ("--addr", f"127.0.0.1:{self.port}", "--log-level", "error", "--disable-telemetry")
        command = [binary, "run", "--server", *address, "--ignore", "*_test.rego", *options, *map(str, paths)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=1):
                    return
            except OSError:
                assert self.process.poll() is None, "the OPA server ended"
                time.sleep(0.02)
        raise AssertionError("the OPA server does not answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def starter(opa: str) -> Iterator[Server]:
    server = Server(opa, POLICIES)
    yield server
    server.stop()


@asynccontextmanager
async def engine_at(url: str, **options: Any) -> AsyncIterator[OpaEngine]:
    engine = OpaEngine(url, **{"timeout_s": 5.0, **options})  # a loaded machine is no defect
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


EMBEDDED = RegorusEngine(PolicySet.load([POLICIES]))


async def test_it_knows_what_the_server_serves(starter: Server) -> None:
    async with engine_at(starter.url) as engine:
        assert engine.fault is None
        for package in ("callgate.call", "callgate.tools", "callgate.request"):
            assert engine.defines(package) == EMBEDDED.defines(package)
        assert not engine.defines("callgate.nothing")
        assert not engine.defines("callgate.access"), "it has no decision"
        assert len(engine.revision) == 64


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=call_inputs())
def test_both_engines_decide_alike(starter: Server, document: dict[str, Any]) -> None:
    async def decide() -> tuple[Any, Any]:
        async with engine_at(starter.url, timeout_s=10) as engine:
            return await _effect(EMBEDDED, document), await _effect(engine, document)

    ours, theirs = asyncio.run(decide())
    # Where OPA finds a value undefined, the embedded engine may refuse to decide: a denial too.
    assert _unescaped(ours) == _unescaped(theirs) or ours is None


def _unescaped(decision: Any) -> Any:
    """A decision whose reasons say ``&`` as it is: OPA's json.marshal writes it so that HTML may hold it."""
    if not isinstance(decision, dict):
        return decision
    reasons = [
        reason.replace(r"\u0026", "&").replace(r"\u003c", "<").replace(r"\u003e", ">")
        for reason in decision["reasons"]
    ]
    return {**decision, "reasons": sorted(reasons)}


async def _effect(engine: Any, document: dict[str, Any]) -> Any:
    try:
        return await engine.decide("callgate.call", document)
    except Unavailable:
        return None


async def test_a_decision_that_is_undefined_is_none(opa: str, tmp_path: Path) -> None:
    (tmp_path / "call.rego").write_text("package callgate.call\n\ndecision := 1 if input.x\n")
    server = Server(opa, tmp_path)
    try:
        async with engine_at(server.url) as engine:
            assert await engine.decide("callgate.call", {}) is None
            assert await engine.decide("callgate.call", {"x": True}) == 1
            before = engine.revision
            _put(server.url, "call.rego", "package callgate.call\n\ndecision := 2\n")
            await engine.refresh()
            assert engine.revision != before
    finally:
        server.stop()


def _put(url: str, name: str, rego: str) -> None:
    request = urllib.request.Request(f"{url}/v1/policies/{name}", rego.encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=5):
        pass


async def test_a_server_that_is_gone_decides_nothing_and_is_found_again(opa: str) -> None:
    server = Server(opa, POLICIES)
    document = {"call": {"id": "1", "name": "get_user", "arguments": {}}}
    async with engine_at(server.url) as engine:
        assert (await engine.decide("callgate.call", document))["effect"] == "deny"
        server.stop()
        with pytest.raises(Unavailable, match="cannot be asked"):
            await engine.decide("callgate.call", document)
        await engine.refresh()
        assert engine.fault
        assert engine.defines("callgate.call"), "what is not known is asked for, and fails closed"
        again = Server(opa, POLICIES, port=server.port)
        try:
            assert (await engine.decide("callgate.call", document))["effect"] == "deny"
            await engine.refresh()
            assert engine.fault is None
        finally:
            again.stop()


async def test_a_server_that_hangs_is_not_waited_for(opa: str) -> None:
    server = Server(opa, POLICIES)
    try:
        async with engine_at(server.url, timeout_s=0.3) as engine:
            os.kill(server.process.pid, signal.SIGSTOP)
            os.waitpid(server.process.pid, os.WUNTRACED)  # until it has stopped
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"within 0\.3 s"):
                await engine.decide("callgate.call", {})
            assert time.monotonic() - began < 2
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
        server.stop()


async def test_a_server_that_asks_for_a_token_gets_it(opa: str, tmp_path: Path) -> None:
    (tmp_path / "authz.rego").write_text(
        'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "s3cret"\n\n'
        'allow if input.path == ["health"]\n'
    )
    (tmp_path / "call.rego").write_text("package callgate.call\n\ndecision := 1\n")
    server = Server(opa, tmp_path, options=("--authentication=token", "--authorization=basic"))
    try:
        async with engine_at(server.url, token="s3cret") as engine:
            assert await engine.decide("callgate.call", {}) == 1
        async with engine_at(server.url, token="wrong") as engine:
            with pytest.raises(Unavailable) as caught:
                await engine.decide("callgate.call", {})
            assert "wrong" not in str(caught.value)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "command", [("check", "--strict"), ("fmt", "--diff", "--fail"), ("test",)], ids=lambda c: c[0]
)
def test_the_starter_policies_pass_opas_own_tools(opa: str, command: tuple[str, ...]) -> None:
    done = subprocess.run([opa, *command, str(POLICIES)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
