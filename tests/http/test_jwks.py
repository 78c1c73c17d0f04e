"""An issuer's keys: which are used, and how Callgate keeps up with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.identity import HttpKeys, IdentityFault, Issuer, KeysFile
from proxy.http.identity.jwks import MAX_BYTES, MAX_KEYS, KeySet, KeySetFault
from tests.http.issuing import ALGORITHMS, Key, Publisher, key, published

EC, RSA, NEW = key(), key("k2", "RS256"), key("k9")


def used(*keys: Key | dict[str, Any], algorithms: tuple[str, ...] = ALGORITHMS) -> set[str | None]:
    return set(KeySet(published(*keys), algorithms).ids)


ED = key("k3", "EdDSA")
PASSED_OVER: dict[str, dict[str, Any]] = {
    "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
    "a secret that says it is for RS256": {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "RS256"},
    "for encrypting": EC.jwk(use="enc"),
    "for other operations": EC.jwk(key_ops=["encrypt"]),
    "operations that are none": EC.jwk(key_ops="verify"),
    "of another algorithm": EC.jwk(alg="ES384"),
    "an algorithm of another type": EC.jwk(alg="RS256"),
    "a curve of another algorithm": key("x", "ES384").jwk(alg=None),
    "a curve that is a list": EC.jwk(crv=["P-256"]),
    "a private key": EC.jwk(d="AAAA"),
    "a point that is not on the curve": EC.jwk(x=RSA.jwk()["n"][:43]),
    "a coordinate that is a number": EC.jwk(x=1),
    "no coordinate": EC.jwk(x=None),
    "too small": key("x", "RS256", 1024).jwk(),
    "not an object": [],  # type: ignore[dict-item]
}


@pytest.mark.parametrize("jwk", PASSED_OVER.values(), ids=PASSED_OVER)
def test_keys_for_anything_else_are_passed_over(jwk: dict[str, Any]) -> None:
    assert used(jwk, RSA) == {"k2"}


def test_a_key_is_used_for_what_it_fits() -> None:
    every = ("RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA")
    keys = KeySet(published(EC.jwk(alg=None, use=None), RSA.jwk(alg=None), ED.jwk(alg=None)), every)
    fits = {name: [id for id in ("k1", "k2", "k3") if keys.find(id, name)] for name in every}
    rsa: dict[str, list[str]] = {name: ["k2"] for name in every[:3]}
    assert fits == rsa | {"ES256": ["k1"], "ES384": [], "EdDSA": ["k3"]}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(max_size=10),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3),
    max_leaves=6,
)
members = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "kid", "alg", "use", "key_ops", "oth"])
EVERY = ("RS256", "PS512", "ES256", "ES384", "ES512", "EdDSA")


@given(st.sampled_from([EC, RSA, ED]), st.dictionaries(members, json_values, max_size=3))
def test_any_members_make_a_key_or_none(by: Key, changed: dict[str, Any]) -> None:
    assert "k9" in KeySet(published(by.jwk() | changed, NEW), EVERY).ids


@given(st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps(value).encode())))
def test_any_bytes_are_a_set_or_a_fault(raw: bytes) -> None:
    with contextlib.suppress(KeySetFault):
        assert KeySet(raw, EVERY).ids == set()


BAD_SETS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"<html>", "not valid JSON"),
    "no object": (b"[]", "not a JWK Set"),
    "no keys": (b"{}", "not a JWK Set"),
    "keys that are no list": (b'{"keys": {}}', "not a JWK Set"),
    "keys twice": (b'{"keys": [], "keys": []}', "duplicate"),
    "too many keys": (published(*[EC] * (MAX_KEYS + 1)), "more than"),
    "too long": (b" " * (MAX_BYTES + 1), "longer than"),
    "nothing": (b"", "not valid JSON"),
}


@pytest.mark.parametrize(("raw", "why"), BAD_SETS.values(), ids=BAD_SETS)
def test_what_is_no_set_of_keys_is_a_fault(raw: bytes, why: str) -> None:
    with pytest.raises(KeySetFault, match=why):
        KeySet(raw, ALGORITHMS)


# -- an issuer


@asynccontextmanager
async def following(publisher: Publisher, **options: Any) -> AsyncIterator[Issuer]:
    """An issuer's keys, followed until the end of the block."""
    issuer = Issuer(HttpKeys(publisher.url, timeout_s=options.pop("timeout_s", 5)), ALGORITHMS, **options)
    stop = asyncio.Event()
    await issuer.start()
    task = asyncio.get_running_loop().create_task(issuer.run(stop))
    try:
        yield issuer
    finally:
        stop.set()
        await task
        await issuer.close()


def ids(issuer: Issuer) -> set[str | None] | None:
    return set(issuer.keys.ids) if issuer.keys is not None else None


async def until(done: Any) -> None:
    """Bounded by the test's own time-out."""
    while not done():
        await asyncio.sleep(0.005)


async def test_keys_are_there_from_the_start_and_followed() -> None:
    async with Publisher(published(EC)) as publisher, following(publisher, refresh_s=0.01) as issuer:
        assert ids(issuer) == {"k1"}
        kept = issuer.keys
        await until(lambda: publisher.asked > 3)
        assert issuer.keys is kept
        publisher.body = published(EC, RSA)
        await until(lambda: ids(issuer) == {"k1", "k2"})
        publisher.body = published(RSA)
        await until(lambda: ids(issuer) == {"k2"})
        assert issuer.notes() == []


async def test_an_issuer_that_comes_later_is_found() -> None:
    async with (
        Publisher(b"", status=503) as publisher,
        following(publisher, first_retry_s=0.01) as issuer,
    ):
        assert issuer.keys is None
        (note,) = issuer.notes()
        assert note == f"identity: tokens cannot be checked; {publisher.url} answers 503"
        publisher.body, publisher.status = published(EC), 200
        await until(lambda: issuer.keys)
        assert issuer.notes() == []


async def test_an_issuer_that_is_not_there_is_no_error() -> None:
    async with Publisher(b"") as publisher:
        pass
    async with following(publisher) as issuer:
        (note,) = issuer.notes()
        assert "cannot be read" in note


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "an error": ({"status": 500}, "answers 500"),
    "a redirect": ({"status": 302, "headers": {"Location": "/elsewhere"}}, "name the address"),
    "no JSON": ({"body": b"<html>"}, "not valid JSON"),
    "endless": ({"body": b" " * 4 * MAX_BYTES}, "longer than"),
    "compressed, unasked": ({"headers": {"Content-Encoding": "gzip"}, "body": b"\x1f\x8b"}, "not valid"),
}


@pytest.mark.parametrize(("change", "why"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_leaves_the_last_good_keys(change: dict[str, Any], why: str) -> None:
    async with Publisher(published(EC)) as publisher, following(publisher, refresh_s=0.01) as issuer:
        kept = issuer.keys
        for name, value in change.items():
            setattr(publisher, name, value)
        await until(issuer.notes)
        assert issuer.keys is kept
        (note,) = issuer.notes()
        assert "the last good keys are in force" in note
        assert why in note


async def test_silence_is_bounded_and_leaves_the_last_good_keys() -> None:
    async with (
        Publisher(published(EC)) as publisher,
        following(publisher, refresh_s=0.01, timeout_s=0.2) as issuer,
    ):
        publisher.open.clear()
        await until(issuer.notes)
        assert "does not answer within 0.2 s" in issuer.notes()[0]
        assert ids(issuer) == {"k1"}


async def test_keys_that_are_withdrawn_go_also_when_none_is_left() -> None:
    async with Publisher(published(EC)) as publisher, following(publisher, refresh_s=0.01) as issuer:
        publisher.body = published()
        await until(issuer.notes)
        assert ids(issuer) == set()
        assert "publishes no key for ES256, RS256" in issuer.notes()[0]


async def test_a_flood_of_unknown_keys_asks_the_issuer_once() -> None:
    now = 100.0
    async with Publisher(published(EC)) as publisher, following(publisher, clock=lambda: now) as issuer:
        publisher.body = published(EC, NEW)
        publisher.open.clear()
        first = {issuer.look_up() for _ in range(1000)}
        (asking,) = first
        assert asking is not None
        publisher.open.set()
        await asking
        assert ids(issuer) == {"k1", "k9"}
        assert publisher.asked == 2
        assert {issuer.look_up() for _ in range(1000)} == {None}
        now += 9.9
        assert issuer.look_up() is None
        now += 0.1
        again = issuer.look_up()
        assert again is not None
        await again
        assert publisher.asked == 3


@pytest.mark.parametrize("refresh_s", [0.01, 300])
async def test_who_stops_waits_for_nobody_and_lets_nobody_wait(refresh_s: float) -> None:
    async with Publisher(published(EC)) as publisher:
        async with asyncio.timeout(5), following(publisher, refresh_s=refresh_s, timeout_s=60) as issuer:
            publisher.open.clear()
            asking = issuer.look_up()
            assert asking is not None
            await until(lambda: publisher.asked >= 2)
        assert asking.done()


# -- a file


def test_a_file_of_keys_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(published(EC))
    file = KeysFile(path, ALGORITHMS)
    kept = file.keys
    file.reload()
    assert file.keys is kept
    path.write_bytes(b"{}")
    with pytest.raises(IdentityFault, match="not a JWK Set"):
        file.reload()
    path.unlink()
    with pytest.raises(IdentityFault, match="No such file"):
        file.reload()
    assert file.keys is kept
    path.write_bytes(published(RSA))
    file.reload()
    assert file.keys is not None
    assert file.keys.ids == {"k2"}
    assert file.look_up() is None
