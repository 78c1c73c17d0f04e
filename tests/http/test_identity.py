"""Who asks, and which headers go no further."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.identity import (
    Anonymous,
    ApiKeys,
    Identity,
    IdentityFault,
    Passthrough,
    Recognised,
    TrustedHeaders,
    Unidentified,
)
from proxy.model import Principal

KEYS = {
    "cg-alice": "{id: alice, roles: [admin, dev], tenant: acme}",
    "cg-alice-new": "{id: alice, roles: [admin, dev], tenant: acme}",
    "cg-bob": "{id: bob}",
}
ALICE = Principal("alice", ("admin", "dev"), "acme", kind="api_keys")
BOB = Principal("bob", kind="api_keys")
USER = Principal("user-1", ("dev", "ops"), "acme", kind="header")
ANYONE = Principal("anonymous", ("guest",), "public", kind="anonymous")
TRUSTED = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"]
FRONT = "10.1.2.3"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def holder(key: str) -> Principal:
    return Principal(f"key-{digest(key)[:16]}", kind="passthrough")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    path.write_text("".join(f"{digest(key)}: {owner}\n" for key, owner in KEYS.items()))
    return path


def door(key_file: Path, ways: str) -> Identity:
    made = {
        "api_keys": lambda: ApiKeys(key_file),
        "header": lambda: TrustedHeaders("X-User", "x-roles", "x-tenant", TRUSTED),
        "passthrough": Passthrough,
        "anonymous": lambda: Anonymous(["guest"], "public"),
    }
    return Identity([made[way]() for way in ways.split()])


def ask(identity: Identity, headers: list[tuple[str, str]], peer: str | None = "203.0.113.9") -> Recognised:
    return identity.identify(CIMultiDictProxy(CIMultiDict(headers)), peer)


ALL = "api_keys header passthrough anonymous"
OWN = {"x-callgate-key"}
SET = {"x-user", "x-roles", "x-tenant"}

CASES = [
    # name, ways, headers, peer, principal, consumed beyond what is always stripped
    ("own key as a bearer token", ALL, "Authorization=Bearer cg-alice", None, ALICE, {"authorization"}),
    ("the scheme in any case", ALL, "authorization=bEARER   cg-alice", None, ALICE, {"authorization"}),
    ("own key without a scheme", ALL, "authorization=cg-alice", None, ALICE, {"authorization"}),
    ("own key as x-api-key", ALL, "X-API-Key=cg-bob", None, BOB, {"x-api-key"}),
    ("own key as api-key", ALL, "api-key=cg-bob", None, BOB, {"api-key"}),
    (
        "own key beside the provider's",
        ALL,
        "x-callgate-key=cg-bob; authorization=Bearer sk-1",
        None,
        BOB,
        set(),
    ),
    (
        "own key twice",
        ALL,
        "x-callgate-key=cg-bob; authorization=Bearer cg-bob",
        None,
        BOB,
        {"authorization"},
    ),
    (
        "two keys of one owner",
        ALL,
        "x-api-key=cg-alice; api-key=cg-alice-new",
        None,
        ALICE,
        {"x-api-key", "api-key"},
    ),
    (
        "a digest is no key",
        ALL,
        f"authorization=Bearer {digest('cg-bob')}",
        None,
        holder(digest("cg-bob")),
        set(),
    ),
    ("an unknown key is the provider's", ALL, "authorization=Bearer sk-1", None, holder("sk-1"), set()),
    ("passthrough of x-api-key", ALL, "x-api-key=sk-1", None, holder("sk-1"), set()),
    ("passthrough of api-key", ALL, "api-key=sk-1", None, holder("sk-1"), set()),
    ("one provider key twice", ALL, "x-api-key=sk-1; authorization=Bearer sk-1", None, holder("sk-1"), set()),
    ("nothing", ALL, "", None, ANYONE, set()),
    ("an empty key", ALL, "x-api-key=", None, ANYONE, set()),
    ("a trusted peer", ALL, "x-user=user-1; x-roles=dev, ops dev; x-tenant=acme", FRONT, USER, set()),
    ("a trusted peer, IPv6", ALL, "x-user=user-1; x-roles=dev ops; x-tenant=acme", "fd00::7", USER, set()),
    (
        "a mapped trusted peer",
        ALL,
        "x-user=user-1; x-roles=dev,ops; x-tenant=acme",
        "::ffff:10.1.2.3",
        USER,
        set(),
    ),
    (
        "a scoped trusted peer",
        ALL,
        "x-user=user-1; x-roles=dev,ops; x-tenant=acme",
        "fd00::7%eth0",
        USER,
        set(),
    ),
    ("only an id", ALL, "x-user=user-1", FRONT, Principal("user-1", kind="header"), set()),
    ("no id", ALL, "x-roles=admin; x-tenant=acme", FRONT, ANYONE, set()),
    ("spoofed, IPv4", ALL, "x-user=user-1; x-roles=admin", "11.1.2.3", ANYONE, set()),
    ("spoofed, IPv6", ALL, "x-user=user-1; x-roles=admin", "2001:db8::1", ANYONE, set()),
    ("spoofed, mapped", ALL, "x-user=user-1; x-roles=admin", "::ffff:11.1.2.3", ANYONE, set()),
    ("spoofed, no address", ALL, "x-user=user-1; x-roles=admin", None, ANYONE, set()),
    ("spoofed, not an address", ALL, "x-user=user-1; x-roles=admin", "10.1.2.3.evil", ANYONE, set()),
    ("spoofed with a provider key", ALL, "X-USER=root; api-key=sk-1", "8.8.8.8", holder("sk-1"), set()),
    (
        "a trusted name and an own key asked for later",
        "header api_keys",
        "x-user=user-1; x-roles=dev ops; x-tenant=acme; authorization=Bearer cg-bob; x-api-key=sk-1",
        FRONT,
        USER,
        {"authorization"},
    ),
]


def parsed(headers: str) -> list[tuple[str, str]]:
    return [
        (name, value) for name, _, value in (one.strip().partition("=") for one in headers.split(";")) if name
    ]


@pytest.mark.parametrize(
    ("ways", "headers", "peer", "principal", "consumed"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_recognises(
    key_file: Path, ways: str, headers: str, peer: str | None, principal: Principal, consumed: set[str]
) -> None:
    found = ask(door(key_file, ways), parsed(headers), peer)
    assert found.principal == principal
    assert found.consumed == consumed | OWN | SET


REFUSED = [
    ("two Authorization", ALL, "authorization=Bearer cg-bob; Authorization=Bearer sk-1", None, 400),
    ("two of one value", ALL, "x-api-key=sk-1; X-Api-Key=sk-1", None, 400),
    ("two x-user, trusted", ALL, "x-user=a; X-User=b", FRONT, 400),
    ("two x-user, untrusted", ALL, "x-user=a; x-user=b", "8.8.8.8", 400),
    ("two x-roles", ALL, "x-user=a; x-roles=dev; x-roles=admin", FRONT, 400),
    ("joined x-user", ALL, "x-user=root, user-1", FRONT, 400),
    ("joined tenant", ALL, "x-user=a; x-tenant=acme,other", FRONT, 400),
    ("an id with an invisible letter", ALL, "x-user=al\u200bice", FRONT, 400),
    ("an id that is not UTF-8", ALL, "x-user=al\udcffice", FRONT, 400),
    ("a very long id", ALL, f"x-user={'a' * 257}", FRONT, 400),
    ("too many roles", ALL, f"x-user=a; x-roles={' '.join(f'r{n}' for n in range(65))}", FRONT, 400),
    ("an unknown own key", ALL, "x-callgate-key=cg-nobody; api-key=sk-1", None, 401),
    ("keys of two owners", ALL, "x-callgate-key=cg-bob; authorization=Bearer cg-alice", None, 400),
    ("two provider keys", ALL, "x-api-key=sk-1; authorization=Bearer sk-2", None, 400),
    ("a provider key with something after it", ALL, "authorization=Bearer sk-1 1", None, 400),
    ("another scheme", ALL, "authorization=Basic c2stMTo=", None, 400),
    ("a bearer of nothing", ALL, "authorization=Bearer", None, 400),
    ("a key that is not ASCII", ALL, "api-key=sk-\u00e9", None, 400),
    ("a key too long", ALL, f"api-key={'a' * 8193}", None, 400),
    ("nothing", "api_keys header passthrough", "", None, 401),
    ("a wrong key", "api_keys", "authorization=Bearer cg-nobody", None, 401),
    ("spoofed", "header", "x-user=root", "8.8.8.8", 401),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ways", "headers", "peer", "status"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refuses(key_file: Path, ways: str, headers: str, peer: str | None, status: int) -> None:
    with pytest.raises(Unidentified) as refusal:
        ask(door(key_file, ways), parsed(headers), peer)
    assert refusal.value.status == status
    assert not any(value in str(refusal.value) for _, value in parsed(headers) if len(value) > 3)


def test_refusal_names_the_ways_and_no_internals(key_file: Path) -> None:
    with pytest.raises(Unidentified) as refusal:
        ask(door(key_file, "api_keys header passthrough"), [])
    text = str(refusal.value)
    assert text == (
        "You were not recognised. Send a Callgate API key as 'Authorization: Bearer KEY' or "
        "'x-callgate-key: KEY', or come through the proxy that signs you in, or send the provider's API key."
    )
    assert not any(inside in text for inside in ("x-user", "10.0", str(key_file), "alice"))


def test_nothing_shows_a_key(key_file: Path) -> None:
    identity = door(key_file, ALL)
    own, provider = (ask(identity, [("api-key", key)]) for key in ("cg-alice", "sk-secret"))
    parts = [vars(identity), *(vars(way) for way in identity.recognisers)]
    shown = f"{own!r} {provider!r} {provider.principal.key} {parts!r}"
    assert "cg-alice" not in shown
    assert "sk-secret" not in shown


def test_own_header_is_stripped_where_no_keys_are_read() -> None:
    found = ask(Identity([Anonymous()]), [("X-Callgate-Key", "cg-alice")])
    assert found.consumed == {"x-callgate-key"}


names = st.text(
    st.characters(categories=["L", "N", "P", "S"], exclude_characters=","), min_size=1, max_size=40
)
keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60).filter(
    lambda key: key.lower() != "bearer"
)
credentials = st.one_of(
    st.tuples(st.just("passthrough"), keys, st.just("")),
    st.tuples(st.just("header"), names, st.just("") | names),
)


def principal_of(kind: str, name: str, tenant: str) -> Principal:
    if kind == "passthrough":
        return ask(Identity([Passthrough()]), [("authorization", f"Bearer {name}")]).principal
    way = TrustedHeaders("x-user", None, "x-tenant", TRUSTED)
    return ask(Identity([way]), [("x-user", name), ("x-tenant", tenant)], FRONT).principal


@given(credentials, credentials)
def test_two_credentials_are_never_one_principal(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert (principal_of(*one).key == principal_of(*other).key) == (one == other)


@given(keys)
def test_a_user_cannot_take_the_name_of_a_key(key: str) -> None:
    victim = principal_of("passthrough", key, "")
    assert principal_of("header", victim.id, "").key != victim.key
    assert Principal(victim.id, kind="api_keys").key != victim.key


@given(keys, st.sampled_from(["Bearer {}", "bearer {}", "BEARER   {}", "{}"]))
def test_one_key_is_one_principal_however_it_is_written(key: str, form: str) -> None:
    identity = Identity([Passthrough()])
    written = ask(identity, [("authorization", form.format(key))]).principal
    assert written == ask(identity, [("api-key", key)]).principal == holder(key)


@given(
    st.lists(
        st.tuples(st.sampled_from(["authorization", "x-api-key", "x-user", "x-roles"]), st.text(max_size=20))
    )
)
def test_any_headers_are_recognised_or_refused(headers: list[tuple[str, str]]) -> None:
    identity = Identity([TrustedHeaders("x-user", "x-roles", None, TRUSTED), Passthrough(), Anonymous()])
    try:
        outcome = ask(identity, headers, FRONT).consumed >= {"x-user", "x-roles"}
    except Unidentified as refusal:
        outcome = refusal.status == 400
    assert outcome


HEX = digest("k")
BAD_FILES = [
    ("a key instead of its digest", "cg-secret-1: {id: a}", ["line 1", "sha256sum"]),
    ("twice", f"{HEX}: {{id: a}}\n{HEX.upper()}: {{id: b}}", ["line 2", "there already"]),
    ("no id", f"{HEX}: {{roles: [a]}}", ["nobody is named"]),
    ("no owner", f"{HEX}:", ["nobody is named"]),
    ("an empty id", f"{HEX}: {{id: ''}}", ["id is not one short name"]),
    ("an id with a line break", f'{HEX}: {{id: "a\\nb"}}', ["id is not one short name"]),
    ("roles as text", f"{HEX}: {{id: a, roles: admin}}", ["roles is not a list"]),
    ("a role that is none", f"{HEX}: {{id: a, roles: [[a]]}}", ["roles is not a list"]),
    ("an unknown key", f"{HEX}: {{id: a, role: [a]}}", ["unknown key"]),
    ("a key twice", f"{HEX}: {{id: a, id: b}}", ["id is there twice"]),
    ("several faults", f"x: {{}}\n{HEX}: {{tenant: []}}", ["line 1", "line 2", "tenant is not", "nobody"]),
    ("a list", "- cg-secret-1", ["not a mapping"]),
    ("not YAML", "\n{cg-secret-1: ]", ["line 2", "not valid YAML"]),
    ("not text", "\x00cg-secret-1", ["not valid YAML"]),
]


@pytest.mark.parametrize(("content", "said"), [c[1:] for c in BAD_FILES], ids=[c[0] for c in BAD_FILES])
def test_key_file_faults(tmp_path: Path, content: str, said: list[str]) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    with pytest.raises(IdentityFault) as fault:
        ApiKeys(path)
    text = "\n".join(fault.value.faults)
    assert all(part in text for part in said), text
    assert all(one.startswith(str(path)) for one in fault.value.faults)
    assert "cg-secret" not in text


def test_a_missing_key_file_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(IdentityFault, match="No such file"):
        ApiKeys(tmp_path / "keys.yaml")


def test_digests_and_names_of_digits_are_text(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"{'1' * 64}: {{id: 007, tenant: 42, roles: [1]}}")
    ways = ApiKeys(path)
    assert {digest: key.owner for digest, key in ways._keys.items()} == {
        "1" * 64: Principal("007", ("1",), "42", kind="api_keys")
    }


def test_reload_takes_a_good_file_and_leaves_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"{digest('k1')}: {{id: one}}")
    way = ApiKeys(path)
    identity = Identity([way])
    path.write_text("not: [good")
    with pytest.raises(IdentityFault):
        way.reload()
    assert ask(identity, [("api-key", "k1")]).principal.id == "one"
    path.write_text(f"{digest('k2')}: {{id: two}}")
    way.reload()
    assert ask(identity, [("api-key", "k2")]).principal.id == "two"
    with pytest.raises(Unidentified):
        ask(identity, [("api-key", "k1")])


@pytest.mark.parametrize("network", ["10.0.0.1/8", "everywhere", ""])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits|address"):
        TrustedHeaders("x-user", None, None, [network])
