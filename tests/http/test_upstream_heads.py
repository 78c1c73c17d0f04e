"""What the head of a request says, and that nobody writes another line into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.upstream import Endpoint, HttpUpstream
from proxy.http.upstream.heads import Heads

NONE: tuple[tuple[str, str], ...] = ()


def written(base_url: str = "http://provider/v1", path: str = "/models", **options: object) -> bytes:
    return Heads(Endpoint("one", base_url, **options)).write("GET", path, NONE, None, False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("base_url", "host", "target"),
    [
        ("http://provider/v1", "provider", "/v1/models"),
        ("https://provider/v1", "provider", "/v1/models"),
        ("http://provider:80/v1", "provider", "/v1/models"),
        ("https://provider:443/v1", "provider", "/v1/models"),
        ("https://provider:80/v1", "provider:80", "/v1/models"),
        ("http://Provider:8080/v1beta/openai", "provider:8080", "/v1beta/openai/models"),
        ("http://[::1]:8080/v1", "[::1]:8080", "/v1/models"),
        ("http://[::1]/v1", "[::1]", "/v1/models"),
        ("http://127.0.0.1:1/v1", "127.0.0.1:1", "/v1/models"),
        ("https://b\u00fccher.example/v1", "xn--bcher-kva.example", "/v1/models"),
    ],
)
def test_the_base_url_names_host_and_target(base_url: str, host: str, target: str) -> None:
    assert written(base_url).decode() == f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/models?a=b&c=%20d", b"/v1/models?a=b&c=%20d"),
        ("/models?q=a b", b"/v1/models?q=a%20b"),
        ("/models?q=a\r\nX-A: a", b"/v1/models?q=a%0D%0AX-A:%20a"),
        ("/models?q=\0\x7f\t", b"/v1/models?q=%00%7F%09"),
        ("/models?q=caf\u00e9", b"/v1/models?q=caf%C3%A9"),
        ("/models?q=\udce9", b"/v1/models?q=%E9"),
        ("/models#part", b"/v1/models%23part"),
    ],
)
def test_a_target_is_one_word(path: str, target: bytes) -> None:
    assert written(path=path).startswith(b"GET " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("method", "body", "headers", "said"),
    [
        ("GET", None, NONE, b""),
        ("HEAD", None, NONE, b""),
        ("POST", None, NONE, b"Content-Length: 0\r\n"),
        ("DELETE", None, NONE, b"Content-Length: 0\r\n"),
        ("POST", b"", NONE, b"Content-Length: 0\r\n"),
        ("POST", b"abc", NONE, b"Content-Length: 3\r\n"),
        ("POST", b"abc", (("content-length", "9"), ("Transfer-Encoding", "x")), b"Content-Length: 3\r\n"),
        ("POST", object(), NONE, b"Transfer-Encoding: chunked\r\n"),
        ("POST", object(), (("Content-Length", "9"),), b"Content-Length: 9\r\n"),
        ("POST", object(), (("Connection", "close"), ("HOST", "other")), b"Transfer-Encoding: chunked\r\n"),
    ],
)  # fmt: skip
def test_what_frames_a_message_is_written_here_alone(
    method: str, body: object, headers: tuple[tuple[str, str], ...], said: bytes
) -> None:
    heads = Heads(Endpoint("one", "http://provider/v1", headers={"host": "other", "connection": "close"}))
    head = heads.write(method, "/models", headers, body, False)  # type: ignore[arg-type]
    assert head == method.encode() + b" /v1/models HTTP/1.1\r\nHost: provider\r\n" + said + b"\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-B: b"),
        ("X-A", "a\nX-B: b"),
        ("X-A", "a\rX-B: b"),
        ("X-A", "a\r\n"),
        ("X-A", "a\0"),
        ("X-A", "\udce9"),
        ("X-A: a\r\nX-B", "b"),
        ("X-A: a", "b"),
        ("X A", "a"),
        ("X-A ", "a"),
        ("", "a"),
        ("X-\u00c4", "a"),
        ("X-A\n", "a"),
    ],
)
def test_what_would_be_another_line_is_not_written(name: str, value: str) -> None:
    heads = Heads(Endpoint("one", "http://provider/v1"))
    with pytest.raises(ValueError, match=r"cannot be written|surrogates"):
        heads.write("GET", "/models", ((name, value),), None, False)
    with pytest.raises(ValueError, match=r"cannot be written|surrogates"):
        written(headers={name: value})


def test_a_method_is_a_word() -> None:
    with pytest.raises(ValueError, match="method"):
        Heads(Endpoint("one", "http://provider/v1")).write("GET /\r\n", "/models", NONE, None, False)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=10)), max_size=5))
def test_each_header_is_one_line(headers: list[tuple[str, str]]) -> None:
    heads = Heads(Endpoint("one", "http://provider/v1"))
    try:
        head = heads.write("GET", "/models", headers, None, False)
    except ValueError:
        return
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")[2:]
    assert [tuple(line.decode().split(": ", 1)) for line in lines] == headers


def test_one_clients_headers_are_no_others() -> None:
    """What is remembered of a request is what the operator sets, not what a client does."""
    heads = Heads(Endpoint("one", "http://provider/v1", key="sk-own", headers={"x-own": "1"}))
    for name in ("ada", "bob"):
        head = heads.write("GET", "/models", (("X-User", name), ("x-api-key", name)), None, True)
        assert (
            head
            == (
                b"GET /v1/models HTTP/1.1\r\nHost: provider\r\nX-User: %b\r\nx-own: 1\r\n"
                b"authorization: Bearer sk-own\r\naccept-encoding: identity\r\n\r\n"
            )
            % name.encode()
        )
    as_anthropic = heads.write("GET", "/models", (("Anthropic-Version", "1"),), None, False)
    assert b"x-api-key: sk-own\r\n" in as_anthropic
    assert b"authorization" not in as_anthropic


def test_a_base_url_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="base URL"):
        HttpUpstream([Endpoint("one", "provider/v1")])
