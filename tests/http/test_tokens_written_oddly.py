"""A token of the issuer's that is written as nobody reads it: refused, and never a provider's to see."""

from __future__ import annotations

import jwt
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.identity import (
    Anonymous,
    Identity,
    Passthrough,
    Recognised,
    Recogniser,
    Tokens,
    TrustedHeaders,
    Unidentified,
)
from tests.http.issuing import AUDIENCE, ISSUER, NOW, key, known

HEADERS = ("Authorization", "X-Api-Key", "Api-Key")
ODD = [
    '"{}"',
    "'{}'",
    'Bearer "{}"',
    "Bearer Bearer {}",
    "Bearer\t{}",
    "Bearer\xa0{}",
    "Bearer, {}",
    "Bearer:{}",
    "Bearer {},",
    "Bearer {}.",
    "Basic {}",
    "JWT {}",
    "Token token={}",
    "\ufeff{}",
    "sk-provider, {}",
]


def token(issuer: str = ISSUER) -> str:
    claims = {"iss": issuer, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 60}
    signing = key() if issuer == ISSUER else key("other")
    return jwt.encode(claims, signing.private, signing.algorithm, headers={"kid": signing.id})


def asked(behind: list[Recogniser], **headers: str) -> Recognised:
    named = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    ways = [Tokens(known(key()), [AUDIENCE], ISSUER, clock=lambda: NOW), *behind]
    ways = ways if not isinstance(behind[0], TrustedHeaders) else ways[::-1]
    return Identity(ways).identify(CIMultiDictProxy(named), "127.0.0.1")


@pytest.mark.parametrize("behind", [Anonymous(), Passthrough()], ids=["anonymous", "passthrough"])
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("written", ODD)
def test_is_refused(behind: Recogniser, header: str, written: str) -> None:
    given = token()
    with pytest.raises(Unidentified) as refused:
        asked([behind], **{header: written.format(given)})
    assert refused.value.status == 401
    assert given not in str(refused.value)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("written", ODD)
def test_is_not_sent_on_where_another_way_was_asked_first(header: str, written: str) -> None:
    front = TrustedHeaders("x-user", None, None, ["127.0.0.0/8"])
    found = asked([front], **{header: written.format(token()), "x_user": "ann"})
    assert found.principal.id == "ann"
    assert header.lower() in found.consumed


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("written", ['"{}"', "{}", "Bearer:{}"])
def test_one_of_another_issuer_is_left_to_others(header: str, written: str) -> None:
    found = asked([Anonymous()], **{header: written.format(token("https://elsewhere.example.com"))})
    assert found.principal.kind == "anonymous"
    assert header.lower() not in found.consumed
