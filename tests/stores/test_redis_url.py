"""Where Redis is: the forms of its URL, and what is refused without repeating it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stores.redis_url import Address, parse_url

GOOD = [
    ("redis://h", Address("single", (("h", 6379),))),
    ("redis://127.0.0.1:7000/3", Address("single", (("127.0.0.1", 7000),), database=3)),
    ("redis://[::1]:7000", Address("single", (("::1", 7000),))),
    ("rediss://h/0", Address("single", (("h", 6379),), tls=True)),
    ("redis://:s%23cr%40t@h", Address("single", (("h", 6379),), password="s#cr@t")),
    ("redis://ann:pw@h:1", Address("single", (("h", 1),), username="ann", password="pw")),
    (
        "rediss://h?ssl_ca_certs=/etc/ca.pem",
        Address("single", (("h", 6379),), tls=True, options={"ssl_ca_certs": "/etc/ca.pem"}),
    ),
    ("redis+sentinel://a,b:1/main", Address("sentinel", (("a", 26379), ("b", 1)), service="main")),
    ("redis+sentinel://a/main/2", Address("sentinel", (("a", 26379),), service="main", database=2)),
    (
        "rediss+sentinel://:pw@a/main?sentinel_password=s",
        Address(
            "sentinel",
            (("a", 26379),),
            tls=True,
            password="pw",
            service="main",
            options={"sentinel_password": "s"},
        ),
    ),
    ("redis+cluster://a:1,b,[::1]:3", Address("cluster", (("a", 1), ("b", 6379), ("::1", 3)))),
    ("rediss+cluster://a/", Address("cluster", (("a", 6379),), tls=True)),
]

BAD = [
    ("http://h", "not a URL of Redis"),
    ("h:6379", "not a URL of Redis"),
    ("redis+file://h", "not a URL of Redis"),
    ("redis://[::1", "not a URL of Redis"),
    ("redis://", "HOST:PORT"),
    ("redis://h:0", "HOST:PORT"),
    ("redis://h:s3cret", "HOST:PORT"),
    ("redis+cluster://a,,b", "HOST:PORT"),
    ("redis://a,b", "several servers"),
    ("redis://h/s3cret", "number of a database"),
    ("redis://h/1/2", "number of a database"),
    ("redis://h/99999999999", "number of a database"),
    ("redis+sentinel://a", "does not name the master"),
    ("redis+cluster://a/1", "only database 0"),
    ("redis://:s3cret#more@h", "%23"),
    ("redis://h?password=s3cret", "'password'"),
    ("redis://h?ssl_ca_certs=s3cret", "'ssl_ca_certs'"),
    ("rediss://h?ssl_cert_reqs=none", "'ssl_cert_reqs'"),
    ("redis://:s3 cret@h", "not a URL of Redis"),
]


@pytest.mark.parametrize(("url", "address"), GOOD, ids=[url for url, _ in GOOD])
def test_what_a_url_says(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(("url", "said"), BAD, ids=[url for url, _ in BAD])
def test_what_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"write|takes|names|end in") as fault:
        parse_url(url)
    assert said in str(fault.value)
    assert "s3" not in str(fault.value)


@given(st.text(max_size=60), st.sampled_from(["redis://", "redis+cluster://", "redis+sentinel://", ""]))
def test_any_text_is_read_or_refused(text: str, scheme: str) -> None:
    try:
        address = parse_url(scheme + text)
    except ValueError:
        return
    assert all(host and 0 < port < 65536 for host, port in address.nodes)


def test_what_is_shown_of_an_address_holds_no_secret() -> None:
    address = parse_url("redis+sentinel://ann:s3cret@a,[::1]:2/main?sentinel_password=s3cret")
    assert address.where == "a:26379,[::1]:2"
    assert "s3cret" not in repr(address)
    assert address.has_credentials
    assert address.secrets == ("s3cret", "s3cret")


def test_the_urls_that_the_docs_show_can_be_used() -> None:
    page = (Path(__file__).parents[2] / "docs/state.md").read_text()
    urls = re.findall(r"^rediss?\S+$", page, re.MULTILINE)
    assert [parse_url(url).kind for url in urls] == ["single", "single", "sentinel", "cluster"]
