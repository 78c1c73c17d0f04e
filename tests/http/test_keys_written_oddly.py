"""A key of Callgate's own that is written as nobody reads it: refused, and never a provider's to see."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.identity import (
    Anonymous,
    ApiKeys,
    Identity,
    Passthrough,
    Recognised,
    Recogniser,
    TrustedHeaders,
    Unidentified,
)

KEY = "cg_0123456789abcdefghijABCDEFGHIJ"
HEADERS = ("Authorization", "X-Api-Key", "Api-Key")
ODD = [
    f'"{KEY}"',
    f"'{KEY}'",
    f'Bearer "{KEY}"',
    f"Bearer Bearer {KEY}",
    f"Bearer\t{KEY}",
    f"Bearer\xa0{KEY}",
    f"Bearer, {KEY}",
    f"Bearer:{KEY}",
    f"Basic {KEY}",
    f"Token token={KEY}",
    f"\ufeff{KEY}",
    f"sk-provider, {KEY}",
    f"\uff22earer {KEY}",
]
# A provider's key may hold the three letters, but does not begin with them.
THEIRS = ["sk-abccg_0123456789abcdefghij", "sk-proj-cg_0123456789", "eyJh.eyJp.cg_0123456789", "xcg_9"]


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    path = tmp_path / "keys.yaml"
    path.write_text(f"{sha256(KEY.encode()).hexdigest()}: {{id: bot}}\n")
    return ApiKeys(path)


def asked(ways: list[Recogniser], **headers: str) -> Recognised:
    named = CIMultiDict((name.replace("_", "-"), value) for name, value in headers.items())
    return Identity(ways).identify(CIMultiDictProxy(named), "127.0.0.1")


@pytest.mark.parametrize("behind", [Anonymous(), Passthrough()], ids=["anonymous", "passthrough"])
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("value", [*ODD, f"Bearer {KEY[:-1]}"])
def test_is_refused(keys: ApiKeys, behind: Recogniser, header: str, value: str) -> None:
    with pytest.raises(Unidentified) as refused:
        asked([keys, behind], **{header: value})
    assert refused.value.status == 401
    assert KEY[:-1] not in str(refused.value)


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("value", ODD)
def test_is_not_sent_on_where_another_way_was_asked_first(keys: ApiKeys, header: str, value: str) -> None:
    front = TrustedHeaders("x-user", None, None, ["127.0.0.0/8"])
    found = asked([front, keys], **{header: value, "x_user": "ann"})
    assert found.principal.id == "ann"
    assert header.lower() in found.consumed


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("value", THEIRS)
def test_what_only_resembles_one_is_the_providers(keys: ApiKeys, header: str, value: str) -> None:
    found = asked([keys, Passthrough()], **{header: value})
    assert found.principal.kind == "passthrough"
    assert header.lower() not in found.consumed
