"""Policies from a bundle server: before they have come, nothing goes through; then everything they allow."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.engines.archiving import packed
from tests.engines.serving import BundleServer, answering
from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, POLICY, ask
from tests.http.test_process import _said, config

CONTENT = packed({"call.rego": POLICY, ".manifest": '{"revision": "r7"}'})


def bundles(server: BundleServer, **members: Any) -> dict[str, Any]:
    return {"policies": {"bundles": [{"url": server.url, "poll_s": 1, **members}]}}


async def ready(session: aiohttp.ClientSession, root: str) -> tuple[int, dict[str, Any]]:
    async with session.get(f"{root}/readyz") as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize("asked", [{}, {"messages": [{"role": "tool", "tool_call_id": "x", "content": "y"}]}])
async def test_without_a_bundle_nothing_goes_through_until_one_comes(
    serve: Serve, session: aiohttp.ClientSession, asked: dict[str, Any]
) -> None:
    async with BundleServer(CONTENT) as server:
        server.answer = answering(503)
        callgate = await serve({"calls": [GET]}, {"calls": [GET]}, **bundles(server))
        status, body = await ready(session, callgate.app.admin_url)
        fault = f"{server.url}: the server answered 503"
        assert (status, body["faults"]) == (503, [f"policies: none are in force yet; {fault}"])
        async with session.post(f"{callgate.url}/chat/completions", json=ask(**asked)) as answer:
            said = await answer.text()
            assert answer.status == 503
            assert "get_user" not in said
            assert server.url not in said
        assert not callgate.provider.requests
        server.answer = None
        async with asyncio.timeout(10):
            while (await ready(session, callgate.app.admin_url))[0] != 200:
                await asyncio.sleep(0.02)
        async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
            assert "get_user" in await answer.text()
        events = await callgate.records("policy")
        assert [(event["event"], event["faults"]) for event in events] == [
            ("refused", [fault]),
            ("loaded", []),
        ]
        assert [bool(event["revision"]) for event in events] == [False, True]


async def test_a_bundle_is_in_force_from_the_first_request_on(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    async with BundleServer(CONTENT) as server:
        callgate = await serve({"calls": [DROP]}, {"text": "I may not."}, **bundles(server))
        assert (await ready(session, callgate.app.admin_url))[0] == 200
        async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "I may not."
        (decision,) = await callgate.records("decision")
        assert decision["policy_revision"] == callgate.app.engine.revision


async def test_a_server_that_is_gone_is_told_and_changes_nothing(
    serve: Serve, session: aiohttp.ClientSession
) -> None:
    async with BundleServer(CONTENT) as server:
        callgate = await serve({"calls": [GET]}, **bundles(server))
        server.answer = answering(500)
        await server.asked(1)
        async with asyncio.timeout(10):
            while not (await ready(session, callgate.app.admin_url))[1].get("notes"):
                await asyncio.sleep(0.02)
        status, body = await ready(session, callgate.app.admin_url)
        assert (status, body["faults"]) == (200, [])
        assert body["notes"] == [
            f"policies: the last good ones are in force; {server.url}: the server answered 500"
        ]
        async with session.post(f"{callgate.url}/chat/completions", json=ask()) as answer:
            assert "get_user" in await answer.text()
        async with session.get(f"{callgate.app.admin_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        assert 'callgate_policy_changes_total{event="refused"} 1.0' in lines
        assert 'callgate_policy_changes_total{event="loaded"} 1.0' in lines


# -- callgate check ------------------------------------------------------------------------------


async def test_check_fetches_a_bundle_and_says_which_it_is(tmp_path: Path) -> None:
    async with BundleServer(CONTENT) as server:
        status, said = await _said("check", "--config", str(config(tmp_path, **bundles(server))))
        assert status == 0
        assert f"{server.url}: r7" in said
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "status", "fault"),
    [
        (b"", 404, "the server answered 404"),
        (CONTENT[:-9], 200, "not a whole gzip file"),
        (packed({"call.rego": "package callgate.call\n\ndecision := x\n"}), 200, "call.rego:3"),
    ],
)
async def test_check_names_what_is_wrong_with_a_bundle(
    tmp_path: Path, content: bytes, status: int, fault: str
) -> None:
    async with BundleServer() as server:
        server.answer = answering(status, content)
        code, said = await _said("check", "--config", str(config(tmp_path, **bundles(server))))
        assert code == 1
        assert f"{server.url}" in said
        assert fault in said


async def test_check_names_a_server_that_is_not_there_and_a_key_that_is_none(tmp_path: Path) -> None:
    file = config(tmp_path, policies={"bundles": [{"url": "http://127.0.0.1:9/b.tar.gz?key=s3cret"}]})
    code, said = await _said("check", "--config", str(file))
    assert code == 1
    assert "http://127.0.0.1:9/b.tar.gz: cannot be reached (Connection refused)" in said
    assert "s3cret" not in said
    (tmp_path / "key.pem").write_text("none")
    keys = {"keys": [{"key": {"file": str(tmp_path / "key.pem")}}]}
    file = config(tmp_path, policies={"bundles": [{"path": "b.tar.gz", "verification": keys}]})
    code, said = await _said("check", "--config", str(file))
    assert code == 1
    assert "policies.bundles[0].verification: key 'default' in file" in said
    assert "it is not the PEM of a public key or a certificate" in said


async def test_the_commands_on_policies_work_on_what_would_be_served(tmp_path: Path) -> None:
    test = "package t_test\n\ntest_one if data.callgate.call.decision.effect\n"
    async with BundleServer(packed({"call.rego": POLICY, "t_test.rego": test})) as server:
        file = str(config(tmp_path, **bundles(server)))
        code, said = await _said("policy", "check", "--config", file)
        assert code == 0, said
        assert "callgate.call" in said
        code, said = await _said("policy", "test", "--config", file)
        assert (code, said) == (0, "PASS: 1/1\n")
        server.answer = answering(500)
        code, said = await _said("policy", "check", "--config", file)
        assert code == 1
        assert f"{server.url}: the server answered 500" in said
