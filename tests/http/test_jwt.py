"""Whose tokens are believed, whose are refused, and whose are left to others. The clock stands at NOW."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.identity import Anonymous, Identity, Passthrough, Recognised, Tokens, Undecided, Unidentified
from proxy.http.identity.claims import MAX_ROLES, Claims
from proxy.model import Principal
from tests.http.issuing import (
    AUDIENCE,
    ISSUER,
    NOW,
    Key,
    Known,
    claims,
    key,
    known,
    published,
    segment,
    token,
    unsigned,
)

EC, RSA, OTHER = key(), key("k2", "RS256"), key("k9")
THIEF = Key("k1", "ES256", OTHER.private)
"""One who signs with a key of his own and calls it ours."""
OTHERS = "https://other.example.com"
KIND = "jwt https%3A//idp.example.com"


def way(keys: Known | None = None, **options: Any) -> Tokens:
    options = {"audiences": [AUDIENCE], "issuer": ISSUER, "leeway_s": 30, "clock": lambda: NOW} | options
    return Tokens(keys or known(EC, RSA), **options)


def ask(tokens: Tokens, credential: str, *more: Any, header: str = "authorization") -> Recognised:
    value = f"Bearer {credential}" if header == "authorization" else credential
    return asked([tokens, *more], [(header, value)])


def asked(ways: list[Any], headers: list[tuple[str, str]]) -> Recognised:
    return Identity(ways).identify(CIMultiDictProxy(CIMultiDict(headers)), None)


def bearer(credential: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {credential}")]


def said_by(credential: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(urlsafe_b64decode(credential.split(".")[1] + "=="))
    return said


def swapped(credential: str, part: int, other: str) -> str:
    parts = credential.split(".")
    parts[part] = other
    return ".".join(parts)


BELIEVED: dict[str, str] = {
    "ES256": token(),
    "RS256": token(RSA),
    "no kid, and one key that fits": token(header={"kid": None}),
    "an access token of RFC 9068": token(header={"typ": "at+jwt"}),
    "its full media type": token(header={"typ": "application/at+JWT"}),
    "no type": token(header={"typ": None}),
    "several audiences, one ours": token(aud=["other", AUDIENCE]),
    "expired, within the leeway": token(exp=NOW - 29),
    "in force soon, within the leeway": token(nbf=NOW + 30, iat=NOW + 30),
    "times that are no whole numbers": token(exp=NOW + 0.5, nbf=NOW - 0.5),
    "keys that the header brings along change nothing": token(
        header={"jwk": OTHER.jwk(), "jku": "https://evil.example.com/", "x5u": "https://evil.example.com/"}
    ),
}


@pytest.mark.parametrize("credential", BELIEVED.values(), ids=BELIEVED)
def test_is_believed(credential: str) -> None:
    found = ask(way(), credential)
    assert found.principal == Principal("alice", ("dev",), claims=said_by(credential), kind=KIND)
    assert found.consumed == {"authorization", "x-callgate-key"}


STRANGER = "not signed with a key of its issuer"
REFUSED: dict[str, tuple[str, str]] = {
    "alg none": (f"{segment({'alg': 'none', 'kid': 'k1'})}.{segment(claims())}.", "three parts"),
    "alg none, with something": (f"{segment({'alg': 'none', 'kid': 'k1'})}.{segment(claims())}.AA", "(alg)"),
    "alg none in other letters": (f"{segment({'alg': 'NonE', 'kid': 'k1'})}.{segment(claims())}.AA", "(alg)"),
    "HS256 with the public key as secret": (unsigned(RSA, published(RSA), "HS256"), "(alg)"),
    "HS512 with the public key as secret": (unsigned(EC, published(EC), "HS512"), "(alg)"),
    "an algorithm that is not accepted": (token(key("k1", "ES384")), "(alg)"),
    "an algorithm of another type of key": (token(header={"alg": "RS256"}), STRANGER),
    "no algorithm": (token(header={"alg": None}), "(alg)"),
    "an algorithm that is no text": (token(header={"alg": ["ES256"]}), "(alg)"),
    "signed by another, with our kid": (token(THIEF), STRANGER),
    "signed by the key in its header": (token(THIEF, header={"jwk": OTHER.jwk(kid="k1")}), STRANGER),
    "signed by another, without a kid": (token(THIEF, header={"kid": None}), STRANGER),
    "a kid of nobody": (token(OTHER), STRANGER),
    "a kid that is no text": (token(header={"kid": 1}), STRANGER),
    "a kid that is a path": (token(header={"kid": "../../dev/null"}), STRANGER),
    "changed claims": (swapped(token(), 1, segment(claims(roles=["admin"]))), STRANGER),
    "a signature of another token": (swapped(token(), 2, token(sub="bob").split(".")[2]), STRANGER),
    "a signature that is too short": (swapped(token(), 2, "AAAA"), STRANGER),
    "no signature": (swapped(token(), 2, ""), "three parts"),
    "critical extensions": (token(header={"crit": ["exp"], "exp": NOW}), "(crit)"),
    "an unencoded payload": (token(header={"crit": ["b64"], "b64": False}), "(crit)"),
    "b64 by itself": (token(header={"b64": True}), "(crit)"),
    "a logout token": (token(header={"typ": "logout+jwt"}), "(typ)"),
    "a proof of possession": (token(header={"typ": "dpop+jwt"}), "(typ)"),
    "a type that is no text": (token(header={"typ": 5}), "(typ)"),
    "two algorithms": (
        token(header=b'{"alg":"none","alg":"ES256","kid":"k1"}'),
        "header that cannot be read",
    ),
    "two subjects": (
        token(claimed=json.dumps(claims())[:-1].encode() + b', "sub": "root"}'),
        "claims that cannot be read",
    ),
    "claims that are no object": (token(claimed=b'["alice"]'), "claims that cannot be read"),
    "claims that are no JSON": (token(claimed=b"alice"), "claims that cannot be read"),
    "a number that is none": (
        token(claimed=json.dumps(claims())[:-1].encode() + b', "x": NaN}'),
        "claims that cannot be read",
    ),
    "a part too many": (f"{token()}.AAAA", "three parts"),
    "a part too few": (token().rpartition(".")[0], "three parts"),
    "padding": (f"{token()}=", "three parts"),
    "a space in its claims": (token().replace(".", ". ", 1), "claims that cannot be read"),
    "another alphabet": (swapped(token(), 1, segment(claims(x="\u00ff" * 9)) + "+/"), "claims that cannot"),
    "too long": (token(note="x" * 8192), "longer than"),
    "another audience": (token(aud="other"), "(aud)"),
    "other audiences": (token(aud=["other", "callgate2"]), "(aud)"),
    "no audience": (token(aud=None), "lacks a claim"),
    "an audience that is no text": (token(aud=[{"x": AUDIENCE}]), "(aud)"),
    "of our key, for another issuer": (token(iss=OTHERS), "(iss)"),
    "of our key, for the issuer with a slash": (token(iss=f"{ISSUER}/"), "(iss)"),
    "of our key, without an issuer": (token(iss=None), "lacks a claim"),
    "of our key, with an issuer that is no text": (token(iss=[ISSUER]), "(iss)"),
    "expired": (token(exp=NOW - 30), "has expired"),
    "expired at the beginning of time": (token(exp=0), "has expired"),
    "without an end": (token(exp=None), "lacks a claim"),
    "with an end that is text": (token(exp=str(NOW + 60)), "no number"),
    "with an end that is true": (token(exp=True), "no number"),
    "with an end that is null": (
        token(claimed=json.dumps(claims(exp=None))[:-1].encode() + b', "exp": null}'),
        "lacks a claim",
    ),
    "with an end beyond all time": (token(exp=10**400), "no number"),
    "not in force yet": (token(nbf=NOW + 31), "not in force yet"),
    "made in the future": (token(iat=NOW + 31), "not in force yet"),
    "a beginning that is text": (token(nbf="now"), "no number"),
    "no subject": (token(sub=None), "one name as sub"),
    "an empty subject": (token(sub=""), "one name as sub"),
    "a subject that is no text": (token(sub=7), "claim that cannot be read"),
    "a subject of two lines": (token(sub="alice\nadmin"), "one name as sub"),
    "a subject with an invisible letter": (token(sub="al\u200bice"), "one name as sub"),
    "a subject without end": (token(sub="a" * 257), "one name as sub"),
    "roles that are a mapping": (token(roles={"admin": True}), "names as roles"),
    "a role that is none": (token(roles=["dev", 1]), "names as roles"),
    "a role of two lines": (token(roles=["dev\nadmin"]), "names as roles"),
    "roles without end": (token(roles=[f"r{n}" for n in range(MAX_ROLES + 1)]), "more than"),
}


@pytest.mark.parametrize(("credential", "why"), REFUSED.values(), ids=REFUSED)
def test_is_refused_and_never_left_to_others(credential: str, why: str) -> None:
    with pytest.raises(Unidentified) as refusal:
        ask(way(), credential, Passthrough(), Anonymous())
    assert refusal.value.status == 401
    assert why in str(refusal.value)
    assert refusal.value.headers == {"WWW-Authenticate": 'Bearer realm="callgate", error="invalid_token"'}
    assert not any(part in str(refusal.value) for part in credential.split(".") if len(part) > 3)


LEFT: dict[str, str] = {
    "a provider's key": "sk-1",
    "a provider's key with dots": "sk.or.1",
    "of another issuer": token(OTHER, iss=OTHERS),
    "of another issuer that uses our kid": token(THIEF, iss=OTHERS),
    "of another issuer, in a way not accepted here": token(key("k1", "ES384"), iss=OTHERS),
    "of another issuer, with an odd type": token(OTHER, iss=OTHERS, header={"typ": "logout+jwt"}),
    "of nobody in particular": token(OTHER, iss=None),
    "encrypted": ".".join([segment({"alg": "dir", "enc": "A256GCM"}), "", "AA", "AA", "AA"]),
    "JSON that is no header": f"{segment(b'[1]')}.{segment(claims())}.AA",
}


@pytest.mark.parametrize("credential", LEFT.values(), ids=LEFT)
def test_is_left_to_others(credential: str) -> None:
    found = ask(way(), credential, Passthrough())
    assert found.principal.kind == "passthrough"
    assert "authorization" not in found.consumed
    with pytest.raises(Unidentified, match="Send a token of your identity provider"):
        ask(way(), credential)


@given(st.text(max_size=60), st.sampled_from(["", "Bearer ", "bearer  ", "Basic "]))
def test_any_text_is_refused_or_left(text: str, scheme: str) -> None:
    assert recognised(way(), f"{scheme}{text}") is None


@given(st.integers(0, 10**6), st.characters())
def test_a_token_with_any_letter_changed_is_nobodys(at: int, letter: str) -> None:
    good = token()
    at %= len(good)
    if letter != good[at] and recognised(way(), f"Bearer {good[:at]}{letter}{good[at + 1 :]}") is not None:
        # The last letter of a signature holds bits that stand for nothing.
        assert at == len(good) - 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=10,
)
names = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "roles", "org", "x"])
head_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "enc", "zip", "jwk", "x5c", "cty"])


@given(st.dictionaries(names, json_values, max_size=4), st.dictionaries(head_names, json_values, max_size=3))
def test_whatever_is_signed_is_recognised_or_refused(said: dict[str, Any], header: dict[str, Any]) -> None:
    named = Claims(roles="org.roles", tenant="org")
    for issuer in (ISSUER, None):
        found = recognised(way(claims=named, issuer=issuer), f"Bearer {token(header=header, **said)}")
        assert found is None or found.principal.id == said.get("sub", "alice")


def recognised(tokens: Tokens, value: str) -> Recognised | None:
    try:
        return tokens.recognise({"authorization": value}, None)
    except Unidentified:
        return None


# -- what is claimed


Named = tuple[str, tuple[str, ...], str]
A, DEV = "https://a.example.com/roles", ("dev",)
CLAIMED: dict[str, tuple[Claims, dict[str, Any], Named]] = {
    "a path": (Claims(roles="a.b"), {"a": {"b": ["x", "y"]}}, ("alice", ("x", "y"), "")),
    "a path that ends early": (Claims(roles="a.b"), {"a": "x"}, ("alice", (), "")),
    "a name with dots": (Claims(roles=A), {A: ["x"]}, ("alice", ("x",), "")),
    "the name before the path": (Claims(roles="a.b"), {"a.b": "x", "a": {"b": "y"}}, ("alice", ("x",), "")),
    "words": (Claims(roles="scope"), {"scope": "read  write read"}, ("alice", ("read", "write"), "")),
    "commas": (Claims(), {"roles": "a, b,c"}, ("alice", ("a", "b", "c"), "")),
    "a role of two words": (Claims(), {"roles": ["Domain Admins"]}, ("alice", ("Domain Admins",), "")),
    "no roles": (Claims(), {"roles": None}, ("alice", (), "")),
    "no role in the list": (Claims(), {"roles": []}, ("alice", (), "")),
    "another id": (Claims(id="client_id"), {"client_id": "batch"}, ("batch", DEV, "")),
    "a tenant": (Claims(tenant="org.id"), {"org": {"id": "acme"}}, ("alice", DEV, "acme")),
}


@pytest.mark.parametrize(("named", "members", "expected"), CLAIMED.values(), ids=CLAIMED)
def test_what_claims_name(named: Claims, members: dict[str, Any], expected: Named) -> None:
    who = ask(way(claims=named), token(**members)).principal
    assert (who.id, who.roles, who.tenant) == expected
    assert who.claims == claims(**members)


@pytest.mark.parametrize("tenant", [{}, {"org": {}}, {"org": {"id": ""}}, {"org": {"id": ["acme"]}}])
def test_a_token_without_its_tenant_is_refused(tenant: dict[str, Any]) -> None:
    with pytest.raises(Unidentified, match=r"org\.id"):
        ask(way(claims=Claims(tenant="org.id")), token(**tenant))


def test_one_subject_of_two_issuers_is_two_principals() -> None:
    one, other = way(), way(known(OTHER), issuer=OTHERS)
    assert ask(one, token()).principal.key != ask(other, token(OTHER, iss=OTHERS)).principal.key
    assert ask(way(issuer=None), token()).principal.kind == "jwt"


def test_the_token_itself_goes_nowhere() -> None:
    credential = token()
    tokens = way()
    found = ask(tokens, credential)
    shown = f"{found!r} {vars(tokens)!r}"
    assert not any(part in shown for part in credential.split("."))


# -- several ways


def test_each_issuers_tokens_are_its_own() -> None:
    ways = [way(others=[OTHERS]), way(known(OTHER), issuer=OTHERS, others=[ISSUER])]
    assert asked(ways, bearer(token())).principal.kind == KIND
    assert asked(ways, bearer(token(OTHER, iss=OTHERS))).principal.kind.endswith("other.example.com")
    with pytest.raises(Unidentified, match="not signed"):
        asked(ways, bearer(token(iss=OTHERS)))


def test_issuers_that_share_their_keys_are_told_apart() -> None:
    ways = [way(others=[OTHERS]), way(issuer=OTHERS, others=[ISSUER])]
    assert asked(ways, bearer(token(iss=OTHERS))).principal.kind.endswith("other.example.com")
    with pytest.raises(Unidentified, match=r"\(iss\)"):
        asked(ways, bearer(token(iss="https://third.example.com")))


NO_ISSUER: dict[str, tuple[str, int]] = {
    "for us": (token(iss=None), 200),
    "from anywhere, by our key": (token(iss=OTHERS), 200),
    "for us, of a key that is not known": (token(OTHER), 401),
    "for another, by our key": (token(aud="other"), 401),
    "for another, with our kid": (token(THIEF, aud="other"), 401),
    "for another, of another key": (token(OTHER, aud="other"), 0),
}


@pytest.mark.parametrize(("credential", "status"), NO_ISSUER.values(), ids=NO_ISSUER)
def test_without_an_issuer_keys_and_audience_tell(credential: str, status: int) -> None:
    try:
        found = 200 if ask(way(issuer=None), credential, Passthrough()).principal.kind == "jwt" else 0
    except Unidentified as refusal:
        found = refusal.status
    assert found == status


def test_a_header_of_its_own_leaves_the_providers_key_alone() -> None:
    tokens = way(header="x-id-token")
    given = [("x-id-token", token()), ("authorization", "Bearer sk-1")]
    found = asked([tokens, Passthrough()], given)
    assert found.principal.id == "alice"
    assert found.consumed == {"x-id-token", "x-callgate-key"}
    assert ask(tokens, f"Bearer {token()}", header="x-id-token").principal.id == "alice"
    # Also what nobody believes, or another way did without, is not for the provider.
    found = asked([tokens, Passthrough()], [("x-id-token", "?"), ("authorization", "Bearer sk-1")])
    assert (found.principal.kind, found.consumed) == ("passthrough", {"x-id-token", "x-callgate-key"})
    with pytest.raises(Unidentified, match="x-id-token: TOKEN"):
        ask(tokens, "")


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
@pytest.mark.parametrize("beside", [[], bearer(token()), bearer("sk-1")])
def test_a_token_among_provider_keys_is_not_sent_on(name: str, beside: list[tuple[str, str]]) -> None:
    ways = [way(), Passthrough(), Anonymous()]
    with pytest.raises(Unidentified, match=f"The token is in {name}. Send a token") as refusal:
        asked(ways, [(name, token(exp=1)), *beside])
    assert refusal.value.status == 401
    assert name in asked([Anonymous(), way()], [(name, token())]).consumed
    # Keys of a provider, and tokens that it takes as keys, go on.
    for key_of_another in ("sk-1", "sk.1.2", token(OTHER, iss=OTHERS)):
        assert asked(ways, [(name, key_of_another)]).principal.kind == "passthrough"
        assert asked(ways, [(name, key_of_another), *bearer(token())]).principal.id == "alice"


def test_twice_is_refused() -> None:
    with pytest.raises(Unidentified) as refusal:
        asked([way()], [("authorization", f"Bearer {token()}"), ("Authorization", "Bearer x")])
    assert refusal.value.status == 400


@pytest.mark.parametrize("credential", [token(), token(exp=NOW - 99), token(OTHER), token(THIEF)])
def test_a_token_of_ours_is_not_sent_on_where_another_way_was_asked_first(credential: str) -> None:
    found = asked([Anonymous(), way()], bearer(credential))
    assert (found.principal.kind, "authorization" in found.consumed) == ("anonymous", True)


@pytest.mark.parametrize("credential", ["sk-1", token(OTHER, iss=OTHERS), "a.b.c"])
def test_what_is_not_ours_is(credential: str) -> None:
    found = asked([Anonymous(), way()], bearer(credential))
    assert "authorization" not in found.consumed


# -- keys


def test_without_keys_ours_wait_and_others_go_on() -> None:
    keys = Known(None)
    for credential in (token(), token(THIEF), token(OTHER)):
        with pytest.raises(Undecided) as undecided:
            ask(way(keys), credential, Passthrough())
        assert undecided.value.status == 503
        assert undecided.value.headers == {"Retry-After": "1"}
    assert keys.asked == 3
    assert ask(way(keys), token(OTHER, iss=OTHERS), Passthrough()).principal.kind == "passthrough"
    assert ask(way(keys), "sk-1", Passthrough()).principal.kind == "passthrough"
    assert keys.asked == 3


ASKS: dict[str, tuple[str, int]] = {
    "an unknown kid": (token(OTHER), 1),
    "a known kid and a wrong signature": (token(THIEF), 0),
    "an algorithm that is not accepted": (unsigned(OTHER, b"x" * 64, "HS256"), 0),
    "a broken token": ("e30.e30", 0),
    "another issuer's": (token(OTHER, iss=OTHERS), 0),
    "a token that is no access token": (token(OTHER, header={"typ": "logout+jwt"}), 0),
}


@pytest.mark.parametrize(("credential", "times"), ASKS.values(), ids=ASKS)
def test_only_a_token_that_may_be_ours_has_the_issuer_asked(credential: str, times: int) -> None:
    keys = known(EC, RSA)
    assert recognised(way(keys), f"Bearer {credential}") is None
    assert keys.asked == times


def test_a_token_is_remembered_until_it_ends() -> None:
    now = float(NOW)
    keys = known(EC)
    tokens = way(keys, clock=lambda: now)
    first = ask(tokens, token())
    assert ask(tokens, token()).principal is not None
    again = ask(tokens, token(exp=NOW + 60))
    assert first.principal == again.principal
    credential = token(jti="one")
    assert ask(tokens, credential).principal is ask(tokens, credential).principal
    now = NOW + 60 + 29.9
    assert ask(tokens, credential).principal.id == "alice"
    now = NOW + 60 + 30.0
    with pytest.raises(Unidentified, match="has expired"):
        ask(tokens, credential)


def test_a_key_that_goes_takes_the_tokens_that_are_remembered() -> None:
    keys = known(EC, RSA)
    tokens = way(keys)
    by_ec, by_rsa = token(), token(RSA)
    assert [ask(tokens, one).principal.id for one in (by_ec, by_rsa)] == ["alice", "alice"]
    keys.keys = known(RSA).keys
    assert ask(tokens, by_rsa).principal.id == "alice"
    with pytest.raises(Unidentified, match="not signed"):
        ask(tokens, by_ec)
    keys.keys = known(EC, RSA).keys
    assert ask(tokens, by_ec).principal.id == "alice"


def test_what_is_remembered_is_bounded() -> None:
    tokens = way()
    for number in range(40):
        ask(tokens, token(jti=str(number)))
    assert len(tokens._known) == 40
    assert tokens._known.maxsize == 1024


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "ES384", "ES512", "EdDSA"])
def test_every_algorithm_can_be_accepted(algorithm: str) -> None:
    by = key(f"own-{algorithm}", algorithm)
    tokens = way(known(by, algorithms=[algorithm]))
    assert ask(tokens, token(by)).principal.id == "alice"
    with pytest.raises(Unidentified, match=r"\(alg\)"):
        ask(tokens, token())


def test_keys_of_one_id_are_all_tried_within_bounds() -> None:
    twins = [Key("k1", "ES256", key(f"twin{n}").private) for n in range(5)]
    tokens = way(known(*twins))
    assert ask(tokens, token(twins[0])).principal.id == "alice"
    assert ask(tokens, token(twins[3])).principal.id == "alice"
    with pytest.raises(Unidentified, match="not signed"):
        ask(tokens, token(twins[4]))
