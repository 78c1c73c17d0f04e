"""Who asks, through the real proxy: signed tokens, keys that change, and headers from in front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from proxy.http.identity.recognising import digest_of
from tests.http.conftest import Serve
from tests.http.harness import GET, Callgate, RawAnswer, ask, http, post, talk
from tests.http.issuing import AUDIENCE, ISSUER, Publisher, key, published, token

NEW = key("k9")
POLICY = """
package callgate.call

default decision := {"effect": "deny", "reasons": ["only verified people of support may"]}

decision := {"effect": "allow"} if {
	"support" in input.principal.roles
	input.principal.tenant == "acme"
	input.principal.claims.email_verified == true
	not input.principal.claims.token
}
"""
OWN_KEY = {"upstream": {"auth": {"env": "PROVIDER_KEY"}}, "environ": {"PROVIDER_KEY": "sk-own"}}


def fresh(*by: Any, **members: Any) -> str:
    now = int(time.time())
    return token(*by, **({"iat": now, "exp": now + 600} | members))


def jwt(publisher: Publisher, **options: Any) -> dict[str, Any]:
    return {"kind": "jwt", "jwks": publisher.url, "audience": AUDIENCE, "issuer": ISSUER} | options


def bearer(credential: str) -> str:
    return f"Authorization: Bearer {credential}"


async def ready(callgate: Callgate) -> dict[str, Any]:
    async with aiohttp.ClientSession() as client, client.get(f"{callgate.app.admin_url}/readyz") as answer:
        assert answer.status == 200
        said: dict[str, Any] = await answer.json()
        return said


async def until(done: Callable[[], Any]) -> None:
    while not await done():
        await asyncio.sleep(0.02)


async def test_policy_sees_what_a_token_says_and_the_provider_nothing(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "own.rego").write_text(POLICY)
    async with Publisher(published(key())) as publisher:
        callgate = await serve(
            {"calls": [GET]},
            {"text": "It may not."},
            identity=[
                jwt(publisher, roles_claim="realm_access.roles", tenant_claim="org"),
                {"kind": "passthrough"},
            ],
            policies={"paths": [str(tmp_path / "own.rego")]},
            **OWN_KEY,
        )
        credential = fresh(realm_access={"roles": ["support"]}, org="acme", email_verified=True)
        answer = orjson.loads((await post(callgate.port, ask(), bearer(credential))).body)
        assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_user"
        (decision,) = await callgate.records("decision")
    assert decision["principal"] == {
        "id": "alice",
        "roles": ["support"],
        "tenant": "acme",
        "kind": "jwt https%3A//idp.example.com",
    }
    (request,) = callgate.provider.requests
    assert request.headers["authorization"] == "Bearer sk-own"
    # No part of the token is anywhere: not at the provider, not in the log.
    log = b"".join(file.read_bytes() for file in callgate.audit.glob("*.jsonl"))
    sent = repr(dict(request.headers))
    for part in credential.split("."):
        assert part not in sent
        assert part.encode() not in log


async def test_without_the_claim_policy_denies(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "own.rego").write_text(POLICY)
    async with Publisher(published(key())) as publisher:
        callgate = await serve(
            {"calls": [GET]},
            {"text": "It may not."},
            identity=[jwt(publisher, tenant_claim="org")],
            policies={"paths": [str(tmp_path / "own.rego")]},
        )
        credential = fresh(roles="support", org="acme", email_verified=False)
        answer = orjson.loads((await post(callgate.port, ask(), bearer(credential))).body)
        assert answer["choices"][0]["message"]["content"] == "It may not."


DOORS = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/models"]


@pytest.mark.parametrize("door", DOORS)
async def test_a_refused_token_is_told_as_every_protocol_does(serve: Serve, door: str) -> None:
    async with Publisher(published(key())) as publisher:
        callgate = await serve(
            {"text": "Fine."}, identity=[jwt(publisher), {"kind": "passthrough"}, {"kind": "anonymous"}]
        )
        method = "GET" if door == "/v1/models" else "POST"
        for credential in (fresh(exp=1), fresh(NEW), fresh(aud="other"), fresh()[:-8]):
            request = http(method, door, headers=["Content-Type: application/json", bearer(credential)])
            answer = RawAnswer(await talk(callgate.port, request))
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="callgate", error="invalid_token"'
            assert "The token " in answer.error["message"]
            assert answer.headers["x-callgate-trace-id"]
        assert callgate.provider.requests == []


async def test_who_sends_nothing_is_told_how(serve: Serve) -> None:
    async with Publisher(published(key())) as publisher:
        callgate = await serve({"text": "Fine."}, identity=[jwt(publisher)])
        answer = await post(callgate.port, ask())
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="callgate"'
        assert "Send a token of your identity provider" in answer.error["message"]


async def test_a_key_that_is_new_is_found_while_the_request_waits(serve: Serve) -> None:
    async with Publisher(published(key())) as publisher:
        callgate = await serve({"text": "Fine."}, {"text": "Fine."}, identity=[jwt(publisher)])
        publisher.body = published(key(), NEW)
        publisher.open.clear()
        waiting = [asyncio.ensure_future(post(callgate.port, ask(), bearer(fresh(NEW)))) for _ in range(2)]
        while publisher.asked < 2:
            await asyncio.sleep(0.005)
        publisher.open.set()
        assert [(await answer).status for answer in waiting] == [200, 200]
        # Keys of nobody do not have the issuer asked again so soon.
        statuses = [(await post(callgate.port, ask(), bearer(fresh(key(f"x{n}"))))).status for n in range(20)]
        assert (statuses, publisher.asked) == ([401] * 20, 2)


async def test_an_issuer_that_is_not_there_keeps_nobody_else_from_being_served(
    serve: Serve, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"{digest_of('cg_1')}: {{id: bot}}\n")
    async with Publisher(b"", status=503) as publisher:
        callgate = await serve(
            *[{"text": "Fine."}] * 3, identity=[{"kind": "api_keys", "path": str(keys)}, jwt(publisher)]
        )
        assert (await post(callgate.port, ask(), bearer("cg_1"))).status == 200
        answer = await post(callgate.port, ask(), bearer(fresh()))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "cannot be read now" in answer.error["message"]
        assert (await ready(callgate))["notes"] == [
            f"identity: tokens cannot be checked; {publisher.url} answers 503"
        ]
        publisher.body, publisher.status = published(key()), 200

        async def found() -> bool:
            return (await post(callgate.port, ask(), bearer(fresh()))).status == 200

        await until(found)
        assert "notes" not in await ready(callgate)


async def test_a_key_file_is_followed(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"{digest_of('cg_1')}: {{id: bot}}\n")
    callgate = await serve(
        *[{"text": "Fine."}] * 50,
        identity=[{"kind": "api_keys", "path": str(keys)}, {"kind": "passthrough"}, {"kind": "anonymous"}],
    )

    async def statuses() -> list[int]:
        return [(await post(callgate.port, ask(), bearer(f"cg_{n}"))).status for n in (1, 2)]

    assert await statuses() == [200, 401]

    async def rotated() -> bool:
        keys.write_text(f"{digest_of('cg_2')}: {{id: bot}}\n")
        return await statuses() == [401, 200]

    await until(rotated)

    async def told() -> bool:
        keys.write_text("cg_3: {id: bot}\n")
        return "notes" in await ready(callgate)

    await until(told)
    assert "line 1: not a SHA-256" in (await ready(callgate))["notes"][0]
    assert await statuses() == [401, 200]


FORWARDED = [
    ("X-Forwarded-For: 10.1.2.3",),
    ("X-Forwarded-For: 127.0.0.1", "X-Real-IP: 10.1.2.3"),
    ("Forwarded: for=10.1.2.3", "True-Client-IP: 10.1.2.3"),
]


@pytest.mark.parametrize("forwarded", FORWARDED)
async def test_only_the_connection_tells_where_a_request_comes_from(
    serve: Serve, forwarded: tuple[str, ...]
) -> None:
    set_in_front = {"kind": "header", "id": "x-user", "roles": "x-roles"}
    named = ("X-User: root", "X-Roles: admin")
    afar = await serve({"text": "Fine."}, identity=[set_in_front | {"trusted": ["10.0.0.0/8"]}])
    assert (await post(afar.port, ask(), *named, *forwarded)).status == 401
    near = await serve({"text": "Fine."}, identity=[set_in_front | {"trusted": ["127.0.0.0/8"]}])
    assert (await post(near.port, ask(), *named, "X-Forwarded-For: 8.8.8.8")).status == 200
    (exchange,) = await near.records("exchange")
    assert exchange["principal"] == {"id": "root", "roles": ["admin"], "tenant": "", "kind": "header"}
    assert "x-user" not in near.provider.requests[0].headers
