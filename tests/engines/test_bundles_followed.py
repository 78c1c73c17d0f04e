"""Bundles at URLs: fetched before they are needed, followed, and put in force whole or not at all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.following.waiting import WaitingEngine
from proxy.engines.following.watching import PolicyWatcher
from proxy.engines.sources.fetching import FIRST_PAUSE_S, Place, RemoteBundle
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.sources.signatures import Verification, VerificationKey
from proxy.ports import Unavailable
from tests.engines.archiving import packed
from tests.engines.serving import BundleServer, answering
from tests.following import until

POLL_S = 0.02


def policy(effect: str) -> str:
    return f'package callgate.call\n\ndecision := {{"effect": "{effect}"}}\n'


def bundle(effect: str, **more: str) -> bytes:
    return packed({"call.rego": policy(effect), **more})


@dataclass
class Followed:
    """An engine that follows bundles, and what was said of it."""

    engine: WaitingEngine
    watcher: PolicyWatcher
    remote: Sequence[RemoteBundle]
    noted: asyncio.Queue[tuple[str, str, Sequence[str]]] = field(default_factory=asyncio.Queue)

    async def effect(self) -> str:
        decision = await self.engine.decide("callgate.call", {})
        return str(decision["effect"])

    async def told(self) -> tuple[str, str]:
        """The next event, with its first fault."""
        event, _, faults = await self.noted.get()
        return event, faults[0] if faults else ""


@asynccontextmanager
async def following(
    *places: Place, paths: Sequence[Path] = (), verification: Verification | None = None
) -> AsyncIterator[Followed]:
    engine = WaitingEngine()
    remote = [RemoteBundle(place, verification) for place in places]
    noted: asyncio.Queue[tuple[str, str, Sequence[str]]] = asyncio.Queue()

    async def load() -> PolicySet:
        return PolicySet.load([*paths, *(archive for one in remote if (archive := one.archive()))])

    watcher = PolicyWatcher(
        engine, load, paths, settle_ms=50, note=lambda *event: noted.put_nowait(event), remote=remote
    )
    stop = asyncio.Event()
    await watcher.start()
    task = asyncio.get_running_loop().create_task(watcher.run(stop))
    try:
        yield Followed(engine, watcher, remote, noted)
    finally:
        stop.set()
        await task
        await watcher.close()


@pytest.fixture
async def server() -> AsyncIterator[BundleServer]:
    async with BundleServer(bundle("allow")) as running:
        yield running


def place(server: BundleServer, **members: Any) -> Place:
    return Place(server.url, **{"poll_s": POLL_S, **members})


# -- fetched and followed ------------------------------------------------------------------------


async def test_policies_are_in_force_before_anything_is_served(server: BundleServer) -> None:
    async with following(place(server, poll_s=60)) as followed:
        assert await followed.effect() == "allow"
        assert await followed.told() == ("loaded", "")
        assert not followed.watcher.missing()
        assert not followed.watcher.notes()
        assert len(server.requests) == 1


async def test_what_did_not_change_is_not_sent_again(server: BundleServer) -> None:
    async with following(place(server)) as followed:
        await server.asked(3)
        assert followed.watcher.reloads == 1
        asked = [headers.get("If-None-Match") for _, headers in server.requests]
        assert asked[0] is None
        assert asked[1] is not None
        assert len(set(asked[1:])) == 1


async def test_without_an_etag_the_same_bytes_are_no_change(server: BundleServer) -> None:
    server.answer = answering(body=server.content)
    async with following(place(server)) as followed:
        await server.asked(3)
        assert followed.watcher.reloads == 1
        assert all("If-None-Match" not in headers for _, headers in server.requests)


async def test_another_bundle_is_put_in_force(server: BundleServer) -> None:
    async with following(place(server)) as followed:
        before = followed.engine.revision
        await followed.told()
        server.content = bundle("deny")
        assert await followed.told() == ("loaded", "")
        assert await followed.effect() == "deny"
        assert followed.engine.revision != before


async def test_a_manifest_s_own_revision_changes_nothing(server: BundleServer) -> None:
    async with following(place(server)) as followed:
        await followed.told()
        server.content = bundle("allow", **{".manifest": '{"revision": "r2"}'})
        await server.asked(3)
        assert followed.watcher.reloads == 1
        assert followed.noted.empty()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<html>", "not a whole gzip file"),
        (bundle("deny")[:-20], "not a whole gzip file: it is cut off"),
        (packed({}), "it holds neither policies nor data"),
        (packed({"call.rego": "package callgate.call\n\ndecision := {"}), "/bundle.tar.gz/call.rego:3"),
        (packed({"call.rego": policy("deny"), "../x": ""}), "is no plain path"),
        (packed({"call.rego": policy("deny"), ".signatures.json": "{}"}), "no key to verify it with"),
    ],
)
async def test_a_bundle_that_cannot_serve_leaves_the_last_good_in_force(
    server: BundleServer, content: bytes, fault: str
) -> None:
    async with following(place(server)) as followed:
        await followed.told()
        before = followed.engine.revision
        server.content = content
        event, said = await followed.told()
        assert event == "refused"
        assert said.startswith(server.url)
        assert fault in said
        assert await followed.effect() == "allow"
        assert followed.engine.revision == before
        assert followed.watcher.notes() == [f"policies: the last good ones are in force; {said}"]
        # It is sent whole again, in case it was only this copy; the same one is told of once.
        await server.asked(3)
        assert [headers.get("If-None-Match") for _, headers in server.requests[1:]].count(None) == 1
        assert followed.noted.empty()
        server.content = bundle("deny")
        assert await followed.told() == ("loaded", "")
        assert await followed.effect() == "deny"
        assert not followed.watcher.notes()


async def test_what_nobody_signed_is_not_put_in_force(server: BundleServer) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    asked = Verification((VerificationKey.of("default", "ES256", public.decode()),))
    async with following(place(server), verification=asked) as followed:
        assert await followed.told() == (
            "refused",
            f"{server.url}: it is not signed: there is no .signatures.json in it",
        )
        assert not followed.engine.ready


# -- nothing in force yet ------------------------------------------------------------------------


async def test_without_a_bundle_nothing_is_decided_until_one_comes() -> None:
    async with BundleServer() as server:
        server.answer = answering(503)
        async with following(place(server)) as followed:
            fault = f"{server.url}: the server answered 503"
            assert await followed.told() == ("refused", fault)
            assert followed.watcher.missing() == [f"policies: none are in force yet; {fault}"]
            for package in ("callgate.call", "callgate.request", "callgate.result"):
                assert followed.engine.defines(package)
                assert followed.engine.reads(package) is None
                with pytest.raises(Unavailable, match="no policies are in force yet"):
                    await followed.engine.decide(package, {})
            assert followed.engine.revision == ""
            server.content, server.answer = bundle("allow"), None
            assert await followed.told() == ("loaded", "")
            assert await followed.effect() == "allow"
            assert not followed.engine.defines("callgate.result")
            assert followed.engine.reads("callgate.call") == frozenset()
            assert not followed.watcher.missing()


async def test_a_server_that_goes_and_comes_again_changes_nothing() -> None:
    async with BundleServer(bundle("allow")) as first, following(place(first)) as followed:
        await followed.told()
        await first.__aexit__()
        event, fault = await followed.told()
        assert event == "refused"
        assert fault == f"{first.url}: cannot be reached (Connection refused)"
        assert followed.watcher.notes() == [f"policies: the last good ones are in force; {fault}"]
        assert await followed.effect() == "allow"
        async with BundleServer(bundle("allow"), port=first.port) as again:
            await again.asked(2)
            assert not followed.watcher.notes()
            assert followed.noted.empty()
            assert followed.watcher.reloads == 1


async def test_who_stops_does_not_wait_for_a_slow_server(server: BundleServer) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(5):
        async with following(place(server, timeout_s=60)) as followed:
            server.answer = answer
            await server.asked(1)
        assert await followed.effect() == "allow"


# -- what is asked, and what is taken ------------------------------------------------------------


async def fetched(server: BundleServer, **members: Any) -> RemoteBundle:
    """A bundle that was asked for once."""
    remote = RemoteBundle(place(server, **members))
    await remote.start()
    try:
        await remote.refresh()
    finally:
        await remote.close()
    return remote


async def test_the_question_is_as_opa_asks_it(server: BundleServer) -> None:
    remote = await fetched(server, token="t0ken")
    (path, headers), *_ = server.requests
    assert path == "/bundle.tar.gz"
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Prefer"] == "modes=snapshot"
    assert headers["Accept-Encoding"] == "identity"
    assert remote.content == server.content
    assert "t0ken" not in repr(remote.place)


async def test_a_query_is_sent_and_not_told(server: BundleServer) -> None:
    server.answer = answering(404)
    remote = RemoteBundle(Place(f"{server.url}?key=s3cret"))
    await remote.start()
    await remote.refresh()
    await remote.close()
    assert remote.fault == f"{server.url}: the server answered 404 (check policies.bundles[].url)"


async def test_an_archive_that_is_called_encoded_is_taken_as_it_is(server: BundleServer) -> None:
    server.answer = answering(body=server.content, Content_Encoding="gzip")
    assert (await fetched(server)).content == server.content


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (204, "the server answered 204"),
        (304, "the server answered 304"),
        (401, "the server answered 401 (check policies.bundles[].token)"),
        (404, "the server answered 404 (check policies.bundles[].url)"),
        (500, "the server answered 500"),
    ],
)
async def test_other_answers_are_no_bundle(server: BundleServer, status: int, fault: str) -> None:
    server.answer = answering(status)
    remote = await fetched(server)
    assert remote.fault == f"{server.url}: {fault}"
    assert remote.content is None


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_archive_may_have_so_many_bytes(server: BundleServer, chunked: bool) -> None:
    size = len(server.content)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if not chunked:
            response.content_length = size
        await response.prepare(request)
        await response.write(server.content)
        return response

    server.answer = answer
    assert (await fetched(server, max_bytes=size)).content == server.content
    remote = await fetched(server, max_bytes=size - 1)
    assert remote.fault == f"{server.url}: larger than {size - 1} bytes (policies.bundles[].max_bytes)"


async def test_an_answer_without_an_end_is_not_waited_for(server: BundleServer) -> None:
    asked = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(server.content[:10])
        await asked.wait()
        return response

    server.answer = answer
    remote = await fetched(server, timeout_s=0.1)
    asked.set()
    assert remote.fault == f"{server.url}: did not come within 0.1 s"
    assert remote.content is None


async def test_an_answer_that_is_cut_off_is_not_taken(server: BundleServer) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": '"x"'})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    server.answer = answer
    remote = RemoteBundle(place(server))
    await remote.start()
    await remote.refresh()
    assert remote.fault == f"{server.url}: did not come whole (ClientPayloadError)"
    server.answer = None
    await remote.refresh()
    await remote.close()
    assert "If-None-Match" not in server.requests[-1][1]
    assert remote.content == server.content


async def test_what_is_forgotten_while_it_is_asked_for_is_asked_for_again(server: BundleServer) -> None:
    remote = RemoteBundle(place(server))
    await remote.start()
    await remote.refresh()
    once = server.requests[-1]

    async def answer(request: web.Request) -> web.StreamResponse:
        remote.forget()  # as when another bundle cannot be put in force beside it
        return web.Response(status=304)

    server.answer = answer
    assert not await remote.refresh()
    assert remote.fault is None
    server.answer = None
    await remote.refresh()
    await remote.close()
    assert server.requests[-1][1].keys() == once[1].keys()


async def test_a_redirect_is_followed_on_the_same_server_only(server: BundleServer) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        if request.path == "/bundle.tar.gz":
            return web.Response(status=307, headers={"Location": "/here.tar.gz"})
        return web.Response(body=server.content)

    server.answer = moved
    remote = await fetched(server, token="t0ken")
    assert remote.content == server.content
    assert server.requests[-1][1]["Authorization"] == "Bearer t0ken"
    async with BundleServer(bundle("deny")) as other:
        server.answer = answering(302, Location=other.url)
        remote = await fetched(server, token="t0ken")
        assert remote.fault is not None
        assert "leads on to another server" in remote.fault
        assert remote.content is None
        assert not other.requests


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("/bundle.tar.gz", "leads on more than 5 times"),
        ("https://127.0.0.1/x", "leads on to another server"),
        ("http://127.0.0.1:1/x", "leads on to another server"),
        ("//example.com/x", "leads on to another server"),
        ("file:///etc/passwd", "did not come whole (ValueError)"),
        ("http://[", "did not come whole (ValueError)"),
    ],
)
async def test_a_redirect_to_nowhere_good_is_refused(server: BundleServer, location: str, fault: str) -> None:
    server.answer = answering(302, Location=location)
    remote = await fetched(server)
    assert remote.fault is not None
    assert fault in remote.fault
    assert remote.content is None


# -- when it is asked ----------------------------------------------------------------------------


@given(st.floats(1, 86_400))
def test_replicas_do_not_ask_all_at_once(poll_s: float) -> None:
    remote = RemoteBundle(Place("https://example.com/b.tar.gz", poll_s=poll_s))
    remote.fault = None
    delays = {remote.delay_s() for _ in range(5)}
    assert len(delays) > 1
    assert all(0.9 * poll_s <= delay <= 1.1 * poll_s for delay in delays)


@given(st.floats(1, 86_400), st.integers(1, 40))
def test_without_an_answer_it_is_asked_sooner_and_then_less_and_less(poll_s: float, failed: int) -> None:
    remote = RemoteBundle(Place("https://example.com/b.tar.gz", poll_s=poll_s))
    delay = [remote.delay_s() for _ in range(failed)][-1]
    longest = min(FIRST_PAUSE_S * 2 ** (failed - 1), poll_s)
    assert longest / 2 <= delay <= longest
    remote.fault = None
    remote.delay_s()
    remote.fault = "again"
    assert remote.delay_s() <= FIRST_PAUSE_S


# -- with other sources --------------------------------------------------------------------------


async def test_bundles_and_files_are_one_set(server: BundleServer, tmp_path: Path) -> None:
    server.content = packed({".manifest": '{"roots": ["reference"]}', "reference/data.json": "[1]"})
    (tmp_path / "call.rego").write_text(
        'package callgate.call\n\ndecision := {"effect": "allow"} if data.reference == [1]\n'
    )
    others = packed({".manifest": '{"roots": ["other"]}', "other/data.json": "1"})
    async with (
        BundleServer(others) as other,
        following(place(server), place(other), paths=[tmp_path]) as followed,
    ):
        assert await followed.told() == ("loaded", "")
        assert await followed.effect() == "allow"
        other.content = server.content
        event, fault = await followed.told()
        assert event == "refused"
        assert "its root (reference) overlaps one (reference)" in fault
        assert await followed.effect() == "allow"
        server.content = packed({".manifest": '{"roots": ["third"]}', "third/data.json": "1"})
        assert await followed.told() == ("loaded", "")
        assert await followed.effect() == "allow"


async def test_a_file_that_changes_is_followed_beside_a_bundle(server: BundleServer, tmp_path: Path) -> None:
    server.content = packed({".manifest": '{"roots": ["reference"]}', "reference/data.json": "[1]"})
    file = tmp_path / "call.rego"
    file.write_text(policy("allow"))
    async with following(place(server, poll_s=60), paths=[tmp_path]) as followed:
        await followed.told()
        await until(lambda: file.write_text(policy("deny")), lambda: followed.watcher.reloads == 2)
        assert await followed.effect() == "deny"
        await until(lambda: file.write_text("package"), lambda: followed.watcher.faults)
        assert followed.watcher.notes()[0].startswith("policies: the last good ones are in force; ")
        assert await followed.effect() == "deny"


async def test_a_bundle_in_a_file_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "b.tar.gz"
    file.write_bytes(bundle("allow"))
    async with following(paths=[file]) as followed:
        await followed.watcher.reload()
        assert await followed.effect() == "allow"
        await until(lambda: _replaced(file, bundle("deny")), lambda: followed.watcher.reloads == 2)
        assert await followed.effect() == "deny"
        await until(lambda: _replaced(file, bundle("allow")[:50]), lambda: followed.watcher.faults)
        assert await followed.effect() == "deny"


def _replaced(file: Path, content: bytes) -> None:
    beside = file.with_name("new")
    beside.write_bytes(content)
    beside.rename(file)


async def test_everything_is_fetched_once_to_be_checked(server: BundleServer) -> None:
    engine = WaitingEngine()
    remote = RemoteBundle(place(server))

    async def load() -> PolicySet:
        return PolicySet.load([archive for archive in [remote.archive()] if archive])

    watcher = PolicyWatcher(engine, load, [], remote=[remote])
    server.content = bundle("allow", **{".manifest": '{"revision": "r7"}'})
    assert (await watcher.read_once()).labels == ((server.url, "r7"),)
    assert engine.ready
    server.content = packed({"call.rego": "package"})
    with pytest.raises(PolicyFault, match=r"call\.rego:1"):
        await watcher.read_once()
    server.answer = answering(500)
    remote.content = None
    with pytest.raises(PolicyFault, match="the server answered 500"):
        await watcher.read_once()


# -- over TLS ------------------------------------------------------------------------------------


def _certificate(folder: Path) -> tuple[Path, Path]:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bundles")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, now, now + timedelta(1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(private, hashes.SHA256())
    key, certificate = folder / "key.pem", folder / "cert.pem"
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key, certificate


async def test_a_server_has_to_be_trusted(tmp_path: Path) -> None:
    key, certificate = _certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    async with BundleServer(bundle("allow"), tls) as server:
        remote = await fetched(server)
        assert remote.fault is not None
        assert "certificate is not trusted (check policies.bundles[].ca_file)" in remote.fault
        assert not server.requests
        remote = await fetched(server, tls=ssl.create_default_context(cafile=str(certificate)))
        assert remote.content == server.content
