"""How providers are found, and that they are who they say they are."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.http.providing import HELLO, OK, Provider, Reader, Writer, client_of, fails, get, paired, playing


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, for ``provider.test`` and 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider.test")])
    names: list[x509.GeneralName] = [x509.DNSName("provider.test")]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path


class Secure(Provider):
    """A provider behind TLS; ``asked_for`` are the names that clients gave."""

    def __init__(self, serve: Any, certified: Path) -> None:
        super().__init__(serve)
        self.asked_for: list[str | None] = []
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(certified)
        self.tls.sni_callback = lambda link, name, context: self.asked_for.append(name)

    async def __aenter__(self) -> Secure:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}/v1"
        return self


def trusting(certified: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certified))


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; returns those that are asked for."""
    asked: list[str] = []

    async def addresses_of(host: str, port: int) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr("proxy.http.upstream.pool._addresses_of", addresses_of)
    return asked


async def test_a_trusted_provider_is_asked_again_over_one_connection(certified: Path) -> None:
    async with Secure(playing(HELLO), certified) as provider:
        async with client_of(provider, tls=trusting(certified)) as upstream:
            for _ in range(3):
                assert await get(upstream, "POST", b"x" * 100_000) == b"hello"
        assert provider.connections == 1


@pytest.mark.parametrize("tls", [True, "of another authority"])
async def test_an_untrusted_provider_is_told_nothing(certified: Path, tls: Any) -> None:
    async with Secure(playing(HELLO), certified) as provider:
        context = tls if tls is True else ssl.create_default_context()
        async with client_of(provider, tls=context) as upstream:
            failure = await fails(upstream)
        assert (failure.status, failure.code) == (502, "upstream_unreachable")
        assert provider.requests == []


async def test_a_provider_that_need_not_be_trusted(certified: Path) -> None:
    async with Secure(playing(HELLO), certified) as provider, client_of(provider, tls=False) as upstream:
        assert await get(upstream) == b"hello"


async def test_a_provider_of_another_name_is_told_nothing(certified: Path) -> None:
    async with Secure(playing(HELLO), certified) as provider:
        url = f"https://localhost:{provider.port}/v1"
        async with client_of(url, tls=trusting(certified)) as upstream:
            assert (await fails(upstream)).code == "upstream_unreachable"
        assert (provider.requests, provider.asked_for) == ([], ["localhost"])


async def test_a_provider_without_tls_is_not_reached(certified: Path) -> None:
    async with Provider(playing(HELLO)) as provider:
        url = provider.url.replace("http:", "https:")
        async with client_of(url, connect_timeout_s=0.5, tls=trusting(certified)) as upstream:
            assert (await fails(upstream)).code in ("upstream_unreachable", "upstream_timeout")


async def test_a_handshake_that_does_not_end_is_left_in_time(certified: Path) -> None:
    async def silent(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.gone(reader)

    async with Provider(silent) as provider:
        url = provider.url.replace("http:", "https:")
        async with client_of(url, connect_timeout_s=0.1, tls=trusting(certified)) as upstream:
            failure = await fails(upstream)
        assert (failure.status, failure.code) == (504, "upstream_timeout")
        await asyncio.wait_for(provider.left.acquire(), 5)


@pytest.mark.parametrize("says_so", [True, False])
async def test_what_only_the_end_ends_must_be_ended_within_tls(certified: Path, says_so: bool) -> None:
    """Anyone on the way can end a connection; only the provider can say that it did."""

    async def serve(provider: Provider, reader: Reader, writer: Writer) -> None:
        await provider.read(reader)
        writer.write(OK + b"\r\nhello")
        await writer.drain()
        if not says_so:
            link = writer.get_extra_info("socket")
            with socket.fromfd(link.fileno(), link.family, link.type) as twin:
                await asyncio.sleep(0.02)
                twin.shutdown(socket.SHUT_WR)

    context = trusting(certified)
    async with Secure(serve, certified) as provider, client_of(provider, tls=context) as upstream:
        if says_so:
            assert await get(upstream) == b"hello"
        else:
            assert (await fails(upstream)).code == "upstream_incomplete"


async def test_a_name_is_looked_up_once_and_the_next_address_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Provider(playing(HELLO)) as provider:
        asked = resolving(monkeypatch, "::1", "127.0.0.9", "127.0.0.1")
        async with client_of(f"http://provider.test:{provider.port}/v1") as upstream:
            assert await asyncio.gather(*(get(upstream) for _ in range(5))) == [b"hello"] * 5
        assert asked == ["provider.test"]


async def test_an_address_that_does_not_answer_delays_little(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listener whose backlog is full answers no SYN.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        async with Provider(playing(HELLO)) as provider:
            full.bind(("127.0.0.2", provider.port))
            full.listen(0)
            for filler in (first, second):
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            resolving(monkeypatch, "127.0.0.2", "127.0.0.1")
            async with client_of(f"http://provider.test:{provider.port}/v1") as upstream:
                assert await asyncio.wait_for(get(upstream), 3) == b"hello"


async def test_a_name_that_moved_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Provider(playing(HELLO)) as provider:
        asked = resolving(monkeypatch, "127.0.0.9")
        async with client_of(f"http://provider.test:{provider.port}/v1") as upstream:
            for _ in range(2):
                assert (await fails(upstream)).code == "upstream_unreachable"
        assert asked == ["provider.test"] * 2


async def test_a_name_that_nobody_has() -> None:
    async with client_of("http://nobody.invalid/v1") as upstream:
        assert (await fails(upstream)).code == "upstream_unreachable"


async def test_a_name_that_can_be_none() -> None:
    async with client_of(f"http://{'a' * 80}.example/v1") as upstream:
        assert (await fails(upstream)).code == "upstream_unreachable"


async def test_a_connection_that_comes_too_late_is_not_left_open() -> None:
    async with paired(HELLO) as (provider, upstream):
        asking = asyncio.ensure_future(fails(upstream))
        await asyncio.sleep(0)
        await upstream.close()
        assert (await asking).code == "upstream_unreachable"
        assert provider.requests == []


CURE = "(look at upstreams[].base_url and the network)"


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the operator is told, without which provider it is about."""
    lines = [record for record in caplog.records if record.name == "callgate.upstream"]
    return [f"{line.levelname} {line.getMessage().split(maxsplit=4)[4]}" for line in lines]


async def test_the_operator_is_told_once_that_an_outage_begins_and_once_that_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as link:
        # Bound, and not listening: whoever connects is refused.
        link.bind(("127.0.0.1", 0))
        port = link.getsockname()[1]
        async with client_of(f"http://127.0.0.1:{port}/v1?key=s3cret") as upstream:
            for _ in range(2):
                failures = await asyncio.gather(*(fails(upstream) for _ in range(4)))
                assert {failure.code for failure in failures} == {"upstream_unreachable"}
            assert said(caplog) == [f"ERROR cannot be reached: Connection refused {CURE}"]
            assert f"upstream 'one' at 127.0.0.1:{port} cannot" in caplog.text
            assert "s3cret" not in caplog.text

            provider = Provider(playing(HELLO))
            async with await asyncio.start_server(provider._accept, sock=link):
                await asyncio.gather(*(get(upstream) for _ in range(4)))
            assert said(caplog)[1:] == ["WARNING can be reached again"]


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://nobody.invalid/v1", "resolution|not known|No address"),
        (f"http://{'a' * 80}.example/v1", "too long"),
        ("http://127.0.0.1:{}/v1", "no connection within 0.2 s"),
        ("https://127.0.0.1:{}/v1", "self-signed certificate"),
    ],
    ids=["no such name", "no name", "too late", "not trusted"],
)
async def test_the_operator_is_told_why(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, certified: Path, url: str, cause: str
) -> None:
    if cause.startswith("no connection"):
        monkeypatch.setattr("proxy.http.upstream.pool._addresses_of", lambda host, port: asyncio.sleep(9))
    async with Secure(playing(HELLO), certified) as provider:
        timeout_s = 0.2 if cause.startswith("no connection") else 5
        async with client_of(url.format(provider.port), connect_timeout_s=timeout_s) as upstream:
            await fails(upstream)
    (line,) = said(caplog)
    assert re.search(cause, line)
    assert line.endswith(CURE)


async def test_who_is_told_late_of_an_outage_that_is_over_does_not_begin_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Provider(playing(HELLO)) as provider:
        address = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", provider.port))
        asked: list[asyncio.Future[Any]] = []

        async def look_up(pool: Any) -> Any:
            asked.append(asyncio.get_running_loop().create_future())
            return await asked[-1]

        monkeypatch.setattr("proxy.http.upstream.pool.Pool._look_up", look_up)
        async with client_of(provider) as upstream:
            late = asyncio.ensure_future(fails(upstream))
            prompt = asyncio.ensure_future(get(upstream))
            await asyncio.sleep(0)
            asked[1].set_result([address])
            assert await prompt == b"hello"
            asked[0].set_exception(OSError("no route"))
            assert (await late).code == "upstream_unreachable"
            assert said(caplog) == []


async def test_neither_who_leaves_nor_a_pool_that_closes_is_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with paired(HELLO) as (_, upstream):
        leaving = asyncio.ensure_future(get(upstream))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        closed = asyncio.ensure_future(fails(upstream))
        await asyncio.sleep(0)
        await upstream.close()
        assert (await closed).code == "upstream_unreachable"
    assert said(caplog) == []
