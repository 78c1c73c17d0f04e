"""TLS, Sentinel and clusters, on real servers: what is particular to each beside the common contract."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.ports import Unavailable
from proxy.stores.redis import RedisStore
from tests.stores import servers
from tests.stores.servers import Server

TIMEOUT_S = 3.0


@asynccontextmanager
async def opened(url: str, prefix: str = "callgate:") -> AsyncIterator[RedisStore]:
    store = RedisStore(url, prefix, timeout_s=TIMEOUT_S)
    try:
        yield store
    finally:
        await store.close()


async def check_works(store: RedisStore) -> None:
    assert await store.put("k", b"v", 60)
    assert await store.get_many(["k", "l", "m"]) == [b"v", None, None]
    assert await store.count("n", 1.5, 60) >= 1.5
    assert await store.keys("k") == ["k"]
    assert await store.take("k") == b"v"


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that signs itself, for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "redis.crt", folder / "redis.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


@pytest.fixture(scope="module")
def tls_port(certificate: tuple[Path, Path]) -> Iterator[int]:
    port = servers.free_port()
    crt, key = map(str, certificate)
    tls = ("--tls-port", str(port), "--tls-cert-file", crt, "--tls-key-file", key, "--tls-auth-clients", "no")
    with servers.server(*tls):
        yield port


async def test_tls_with_a_certificate_that_is_trusted(tls_port: int, certificate: tuple[Path, Path]) -> None:
    async with opened(f"rediss://127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate[0]}") as store:
        await check_works(store)


@pytest.mark.parametrize("form", ["rediss://{0}:{1}", "rediss://localhost:{1}?ssl_ca_certs={2}"])
async def test_tls_refuses_whom_it_cannot_verify(
    tls_port: int, certificate: tuple[Path, Path], form: str
) -> None:
    async with opened(form.format("127.0.0.1", tls_port, certificate[0])) as store:
        with pytest.raises(Unavailable, match="certificate"):
            await store.get("k")


async def test_a_certificate_authority_that_is_not_there_is_named(tls_port: int) -> None:
    async with opened(f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs=/nowhere/ca.pem") as store:
        with pytest.raises(Unavailable, match="No such file"):
            await store.get("k")


# -- a prefix


async def test_two_prefixes_share_a_server_and_see_nothing_of_each_other() -> None:
    with servers.server() as server:
        async with opened(server.url, "a*:") as one, opened(server.url, "ab:") as other:
            await one.put("k", b"one", 60)
            await other.put("k", b"other", 60)
            await other.put("l", b"other", 60)
            assert await one.get("k") == b"one"
            assert await one.keys("") == ["k"]
            assert await other.keys("") == ["k", "l"]
        with server.client() as client:
            assert sorted(client.keys()) == [b"a*:k", b"ab:k", b"ab:l"]
            assert all(client.pttl(key) > 0 for key in client.scan_iter())


async def test_keys_of_others_that_are_no_text_are_passed_over() -> None:
    with servers.server() as server:
        with server.client() as client:
            client.set(b"callgate:\xff", b"")
        async with opened(server.url) as store:
            await store.put("mine", b"", 60)
            await store.put("lone \ud800", b"", 60)
            assert sorted(await store.keys("")) == ["lone \ud800", "mine"]


COMMANDS = ["GET", "MGET", "SET", "EVAL", "DEL", "INCRBYFLOAT", "PTTL", "PEXPIRE", "SCAN", "PING", "INFO"]


@pytest.fixture(scope="module")
def plain() -> Iterator[Server]:
    with servers.server() as server:
        yield server


async def everything(store: RedisStore) -> None:
    await check_works(store)
    await store.ping()
    await store._ask(lambda redis: redis.client.get("callgate:k"))
    await store._ask(lambda redis: redis.client.info("memory"))


@pytest.mark.parametrize("missing", [None, *COMMANDS])
async def test_the_commands_that_the_docs_name_are_needed_and_enough(
    plain: Server, missing: str | None
) -> None:
    page = (servers.ROOT / "docs/state.md").read_text()
    assert ", ".join(f"`{name}`" for name in COMMANDS[:-1]) + f" and `{COMMANDS[-1]}`" in page
    allowed = [f"+{name}" for name in COMMANDS if name != missing]
    with plain.client() as client:
        client.flushall()
        client.acl_setuser(
            "callgate", enabled=True, reset=True, passwords=["+s3cret"], keys=["callgate:*"], commands=allowed
        )
    async with opened(f"redis://callgate:s3cret@127.0.0.1:{plain.port}") as store:
        if missing is None:
            await everything(store)
            return
        with pytest.raises(Unavailable, match="refused"):
            await everything(store)


async def test_keys_of_others_can_be_kept_from_it(plain: Server) -> None:
    with plain.client() as client:
        client.acl_setuser(
            "narrow",
            enabled=True,
            reset=True,
            passwords=["+s3cret"],
            keys=["callgate:*"],
            categories=["+@all"],
        )
    async with opened(f"redis://narrow:s3cret@127.0.0.1:{plain.port}", "other:") as store:
        with pytest.raises(Unavailable, match="refused"):
            await store.get("k")


# -- Sentinel


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Server, Server, Server]]:
    """A master, its replica, and a sentinel that may fail over alone."""
    with (
        servers.server("--repl-diskless-sync-delay", "0") as master,
        servers.server("--replicaof", "127.0.0.1", str(master.port)) as replica,
    ):
        port = servers.free_port()
        config = tmp_path / "sentinel.conf"
        config.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        )
        sentinel = Sentinel(tmp_path, config, port)
        with replica.client() as client:
            servers.until(lambda: client.info("replication")["master_link_status"] == "up")
        try:
            sentinel.start()
            with sentinel.client() as client:
                servers.until(lambda: client.sentinel_master("main")["num-slaves"] == 1)
            yield master, replica, sentinel
        finally:
            sentinel.kill()


class Sentinel(Server):
    def __init__(self, directory: Path, config: Path, port: int) -> None:
        super().__init__(directory, "--sentinel", "--port", str(port), port=port)
        self._config = config

    def arguments(self) -> tuple[str, ...]:
        return (str(self._config),)


async def test_after_a_failover_the_new_master_is_asked(watched: tuple[Server, Server, Server]) -> None:
    master, replica, sentinel = watched
    gone = servers.free_port()
    async with opened(f"redis+sentinel://127.0.0.1:{gone},127.0.0.1:{sentinel.port}/main") as store:
        await check_works(store)
        await store.put("kept", b"v", 600)
        with replica.client() as client:
            servers.until(lambda: client.exists("callgate:kept") == 1)
        await asyncio.to_thread(master.kill)
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await store.put("after", b"v", 600)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        assert await store.get("kept") == b"v"
        with replica.client() as client:
            assert client.get("callgate:after") == b"v"


async def test_a_sentinel_that_hangs_leaves_time_for_the_next(watched: tuple[Server, Server, Server]) -> None:
    with socket.socket() as hangs:
        hangs.bind(("127.0.0.1", 0))
        hangs.listen()
        nodes = f"127.0.0.1:{hangs.getsockname()[1]},127.0.0.1:{watched[2].port}"
        async with opened(f"redis+sentinel://{nodes}/main") as store:
            await check_works(store)


async def test_a_master_that_sentinel_does_not_know_is_unavailable(
    watched: tuple[Server, Server, Server],
) -> None:
    async with opened(f"redis+sentinel://127.0.0.1:{watched[2].port}/other") as store:
        with pytest.raises(Unavailable, match="No master found for 'other'"):
            await store.get("k")


# -- clusters


async def test_a_cluster_spreads_keys_and_is_found_through_any_node() -> None:
    with servers.cluster() as (one, two):
        names = [f"k{n}" for n in range(50)]
        gone = servers.free_port()
        async with opened(f"redis+cluster://127.0.0.1:{gone},127.0.0.1:{two.port}") as store:
            await check_works(store)
            await store.put_many({name: name.encode() for name in names}, 60)
            assert await store.get_many(names) == [name.encode() for name in names]
            assert sorted(await store.keys("k")) == sorted(names)
            with one.client() as first, two.client() as second:
                assert 0 < first.dbsize() < 51
                assert 0 < second.dbsize() < 51
            await asyncio.to_thread(one.kill)
            with pytest.raises(Unavailable):
                await store.get_many(names)
            one.start()
            async with asyncio.timeout(20):
                while True:
                    try:
                        values = await store.get_many(names)
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            assert 0 < values.count(None) < 50
