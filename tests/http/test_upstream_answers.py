"""What a provider's bytes are read as: the same however they are cut, and never more than one answer."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.upstream.answer import MAX_FIELDS, MAX_HEAD_BYTES, Answer
from proxy.http.upstream.decoding import MAX_PIECE_BYTES, Decoder, NotEncoded

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

# Bytes -> the body, and whether the connection may serve again.
WHOLE: dict[str, tuple[bytes, bytes, bool]] = {
    "a length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    "a padded length": (OK + b"Content-Length:\t5 \r\n\r\nhello", b"hello", True),
    "an empty body": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "line breaks as a body": (OK + b"Content-Length: 8\r\n\r\n\r\n\r\n\r\n\r\n", b"\r\n" * 4, True),
    "chunks": (CHUNKED + b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n", b"hello!", True),
    "a chunk that looks like the last": (CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", True),
    "padded chunk sizes": (CHUNKED + b"5  \r\nhello\r\n000\r\n\r\n", b"hello", True),
    "no chunks": (CHUNKED + b"0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "no content of a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
    "words before": (EARLY + OK + b"Content-Length: 2\r\n\r\nok", b"ok", True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "empty headers": (OK + b"X-A:\r\nX-B: \r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "keep-alive": (OK + b"Connection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
    "the last": (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    "the last of several": (
        OK + b"Connection: x\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
        b"",
        False,
    ),
    "an older version": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        b"",
        False,
    ),
    "until the end": (OK + b"\r\nhello", b"hello", False),
    "nothing until the end": (OK + b"\r\n", b"", False),
}

REFUSED: dict[str, bytes] = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "line breaks before": b"\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "an ancient version": b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
    "an unknown version": b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a status below all": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "another protocol unnamed": b"HTTP/1.1 101 Switching\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "one length twice": OK + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": OK + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": OK + b"Content-Length: -5\r\n\r\nhello",
    "an endless length": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
    "an empty length": OK + b"Content-Length:\r\n\r\n",
    "a length of words": OK + b"Content-Length: 5 5\r\n\r\nhello",
    "a length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks of something else": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks within": OK + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding with a NUL": OK + b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n",
    "a folded value": OK + b"X-A: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a folded coding": OK + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n0\r\n\r\n",
    "a folded status line": OK + b" X-A: a\r\nContent-Length: 0\r\n\r\n",
    "a space before the coding's colon": OK + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a space before any colon": OK + b"X-A : 5\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": OK + b"Content-Length : 5\r\n\r\nhello",
    "no colon": OK + b"Content-Length\r\n\r\n",
    "no name": OK + b": 5\r\n\r\n",
    "a name with a NUL": OK + b"X\0A: 5\r\n\r\n",
    "a NUL": OK + b"X-A: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a bare CR": OK + b"X-A: a\rX-B: b\r\nContent-Length: 0\r\n\r\n",
    "a bare LF": OK + b"X-A: a\nX-B: b\r\nContent-Length: 0\r\n\r\n",
    "bare LFs alone": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "an endless head": OK + b"X-A: " + b"a" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    "an endless name": OK + b"a" * (MAX_HEAD_BYTES + 1),
    "a flood of headers": OK + b"X-A: a\r\n" * (MAX_FIELDS + 1) + b"Content-Length: 0\r\n\r\n",
    "words without end": b"HTTP/1.1 102 Processing\r\n\r\n" * 3000,
}
# What is wrong only behind the head.
BROKEN: dict[str, bytes] = {
    "no size": CHUNKED + b"zz\r\n",
    "a signed size": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "a hexadecimal mark": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "an endless size": CHUNKED + b"fffffffffffffffff\r\nhello",
    "a size with a bare LF": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "an extension with a bare LF": CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
    "more than its size": CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "an extension without end": CHUNKED + b"5;" + b"a" * (2 * MAX_HEAD_BYTES),
    "trailers without end": CHUNKED + b"0\r\n" + b"X-A: a\r\n" * 20_000,
    "a length in a trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
    "no trailer": CHUNKED + b"0\r\nno trailer\r\n\r\n",
    "a cut length": OK + b"Content-Length: 6\r\n\r\nhello",
    "a cut chunk": CHUNKED + b"6\r\nhello",
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "half a last chunk": CHUNKED + b"5\r\nhello\r\n0\r\n",
}


def pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]
    return [raw[a:b] for a, b in pairwise(marks) if a < b]


def read(parts: list[bytes], method: str = "POST", clean: bool = True) -> Answer:
    answer = Answer(method)
    for part in parts:
        answer.feed(part)
    answer.close(clean)
    return answer


def may_serve_again(answer: Answer) -> bool:
    return answer.ended and answer.is_exact and answer.head is not None and answer.head.keeps


CUTS = st.lists(st.integers(0, 5000), max_size=6)


@pytest.mark.parametrize("case", WHOLE)
@given(cuts=CUTS)
def test_an_answer_is_the_same_however_it_is_cut(case: str, cuts: list[int]) -> None:
    raw, body, keeps = WHOLE[case]
    answer = read(pieces(raw, cuts))
    assert answer.fault is None
    assert (answer.ended, b"".join(answer.body)) == (True, body)
    if may_serve_again(read([raw])) != may_serve_again(answer):
        # The one end that cannot be told is a last chunk that comes in parts.
        assert raw.endswith(b"0\r\n\r\n")
    assert may_serve_again(read([raw])) is keeps


@pytest.mark.parametrize("case", WHOLE)
def test_an_answer_of_one_byte_at_a_time(case: str) -> None:
    raw, body, _ = WHOLE[case]
    answer = read([raw[n : n + 1] for n in range(len(raw))])
    assert (answer.fault, answer.ended, b"".join(answer.body)) == (None, True, body)


JUNK = [b"\r\n", b"\n", b"x", b"0\r\n\r\n", WHOLE["a length"][0], WHOLE["chunks"][0]]


@pytest.mark.parametrize("case", [case for case in WHOLE if "until" not in case])
@given(junk=st.sampled_from(JUNK), cuts=CUTS)
def test_what_is_behind_an_answer_is_nobodys(case: str, junk: bytes, cuts: list[int]) -> None:
    raw, body, _ = WHOLE[case]
    answer = read(pieces(raw + junk, cuts))
    assert (answer.fault, answer.ended, b"".join(answer.body)) == (None, True, body)
    assert not may_serve_again(answer)


@pytest.mark.parametrize("case", REFUSED)
@given(cuts=CUTS)
def test_what_has_two_readings_has_none(case: str, cuts: list[int]) -> None:
    for parts in (pieces(REFUSED[case], cuts), [REFUSED[case]]):
        answer = read(parts)
        assert answer.head is None
        assert answer.fault is not None
        assert answer.fault.code == "upstream_malformed"
        assert not answer.ended
        assert answer.body == []


@pytest.mark.parametrize("case", BROKEN)
@given(cuts=CUTS)
def test_a_body_without_its_end_is_not_whole(case: str, cuts: list[int]) -> None:
    answer = read(pieces(BROKEN[case], cuts))
    assert answer.head is not None
    assert answer.fault is not None
    assert answer.fault.code == "upstream_incomplete"
    assert not answer.ended
    assert b"hello!".startswith(b"".join(answer.body))


def test_what_only_the_end_of_the_connection_ends_must_be_ended() -> None:
    raw = OK + b"\r\nhello"
    assert read([raw], clean=True).ended
    cut = read([raw], clean=False)
    assert not cut.ended
    assert cut.fault is not None
    assert cut.fault.code == "upstream_incomplete"


@given(st.binary(max_size=30), CUTS)
def test_a_head_that_does_not_end_is_no_answer(tail: bytes, cuts: list[int]) -> None:
    raw = OK + b"Content-Type: application/json\r\nX-A: " + tail.replace(b"\n", b"").replace(b"\r", b"")
    answer = read(pieces(raw, cuts))
    assert answer.fault is not None
    assert answer.fault.code == "upstream_broken"


@pytest.mark.parametrize(
    "head", [b"Content-Length: 5\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"\r\n"]
)
def test_the_answer_to_head_has_no_body(head: bytes) -> None:
    answer = Answer("HEAD")
    answer.feed(OK + head)
    assert answer.ended
    assert answer.is_exact
    answer.feed(b"hello")
    assert (answer.body, answer.is_exact) == ([], False)


def test_how_long_a_provider_keeps_a_connection_is_read() -> None:
    answer = read([OK + b"Keep-Alive: max=100, Timeout=7\r\nContent-Length: 0\r\n\r\n"])
    assert answer.head is not None
    assert answer.head.idle_s == 7


def test_trailers_are_no_headers() -> None:
    answer = read([CHUNKED + b"2\r\nok\r\n0\r\nContent-Type: text/html\r\nX-Late: 1\r\n\r\n"])
    assert answer.ended
    assert answer.head is not None
    assert answer.head.fields == [("Transfer-Encoding", "chunked")]
    assert not may_serve_again(answer)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), CUTS)
def test_chunks_are_put_together(parts: list[bytes], cuts: list[int]) -> None:
    framed = b"".join(b"%X\r\n%b\r\n" % (len(part), part) for part in parts)
    answer = read(pieces(CHUNKED + framed + b"0\r\n\r\n", cuts))
    assert (answer.fault, answer.ended, b"".join(answer.body)) == (None, True, b"".join(parts))


BYTES = [b"%c" % byte for byte in b"\r\n \t:;05f\0\xff"]
LINES = [b"Content-Length: 5\r\n", b"Content-Length : 5\r\n", b"Transfer-Encoding: chunked\r\n"]
NOISE = st.sampled_from(
    [*BYTES, *LINES, b"\r\n", b"\r\n\r\n", b"5\r\nhello\r\n", b"hello", b"chunked", OK, EARLY]
)


@given(st.lists(NOISE, max_size=14), CUTS)
def test_whatever_a_provider_says_is_read_one_way(parts: list[bytes], cuts: list[int]) -> None:
    raw = OK + b"".join(parts)
    whole, cut = read([raw]), read(pieces(raw, cuts))
    assert cut.ended == whole.ended
    assert (cut.fault and cut.fault.code) == (whole.fault and whole.fault.code)
    assert (cut.head and cut.head.fields) == (whole.head and whole.head.fields)
    assert b"".join(cut.body) == b"".join(whole.body)
    assert whole.ended or whole.fault is not None


# -- content encodings

PACKED = {
    "gzip": lambda raw: zlib.compress(raw, wbits=31),
    "deflate": zlib.compress,
    "raw deflate": lambda raw: zlib.compress(raw, wbits=-15),
    "members": lambda raw: zlib.compress(raw[:7], wbits=31) + zlib.compress(raw[7:], wbits=31),
}


def unpack(kind: str, parts: list[bytes]) -> list[bytes]:
    decoder = Decoder("deflate" if "deflate" in kind else "gzip")
    found = [piece for part in parts for piece in decoder.feed(part)]
    decoder.close()
    return found


@pytest.mark.parametrize("kind", PACKED)
@given(raw=st.binary(max_size=2000), cuts=CUTS)
def test_an_encoding_is_undone_however_it_is_cut(kind: str, raw: bytes, cuts: list[int]) -> None:
    packed = PACKED[kind](raw)
    assert b"".join(unpack(kind, pieces(packed, cuts))) == raw


@pytest.mark.parametrize("kind", PACKED)
def test_an_encoding_without_its_end_is_not_whole(kind: str) -> None:
    packed = PACKED[kind](b"hello, hello, hello")
    for end in range(1, len(packed)):
        first = zlib.compress(b"hello, ", wbits=31)
        if kind == "members" and end == len(first):
            continue
        with pytest.raises(NotEncoded):
            unpack(kind, [packed[:end]])


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_behind_an_encoded_body_is_no_part_of_it(kind: str) -> None:
    for parts in ([PACKED[kind](b"hello") + b"\0junk"], [PACKED[kind](b"hello"), b"\0junk"]):
        with pytest.raises(NotEncoded):
            unpack(kind, parts)


@pytest.mark.parametrize("kind", PACKED)
def test_no_piece_is_larger_than_a_bound(kind: str) -> None:
    raw = bytes(9 * MAX_PIECE_BYTES + 5)
    found = unpack(kind, [PACKED[kind](raw)])
    assert max(map(len, found)) <= MAX_PIECE_BYTES
    assert b"".join(found) == raw
