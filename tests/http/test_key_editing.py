"""Key files that are changed in place: only what was meant changes, and nothing is ever half there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.identity import IdentityFault
from proxy.http.identity.key_editing import KeyFile, change, stamp
from proxy.http.identity.key_file import Key, is_name, moment, read_key_file
from proxy.model import Principal

AT = datetime(2027, 1, 31, 12, 0, tzinfo=UTC)
A, B, C = (sha256(name.encode()).hexdigest() for name in "abc")
ALICE = Key(Principal("alice", ("dev",), kind="api_keys"))

LAYOUTS: dict[str, str] = {
    name: text.replace("<A>", A).replace("<B>", B)
    for name, text in {
        "a line each": "<A>: {id: alice, roles: [dev]}\n<B>: {id: bob}\n",
        "no line end": "<A>: {id: alice, roles: [dev]}\n<B>: {id: bob}",
        "comments": "# ours\n\n# A\n<A>: {id: alice, roles: [dev]} # laptop\n# B\n<B>: {id: bob}\n# end\n",
        "blocks": "<A>:\n  id: alice  # her\n  roles:\n    - dev\n\n# B's\n<B>:\n  id: bob\n# end\n",
        "several lines": "<A>: {\n  id: alice,\n  roles: [\n    dev,\n  ],\n}\n<B>: {id: bob}\n",
        "quoted": "\"<A>\": {\"id\": \"alice\", \"roles\": [\"dev\"]}\n'<B>': {id: 'bob'}\n",
        "indented": "  <A>: {id: alice, roles: [dev]}\n  <B>: {id: bob}\n",
        "a trailing comma": "<A>: {id: alice, roles: [dev], }\n<B>: {id: bob,}\n",
        "lines of another system": "<A>: {id: alice, roles: [dev]}\r\n<B>: {id: bob}\r\n",
        "a document's begin": "---\n<A>: {id: alice, roles: [dev]}\n<B>: {id: bob}\n",
        "not Latin": "# ключи 🔑\n<A>: {id: alice, roles: [dev]} # 🔑\n<B>: {id: bob}\n",
        "expiring": "<A>: {id: alice, expires: 2027-06-01}\n<B>: {id: bob, expires: '2027-06-01'}\n",
        "blocks that expire": "<A>:\n  id: alice\n  expires: 2027-06-01 # A\n<B>:\n  expires: 2028-01-01\n"
        "  id: bob\n",
    }.items()
} | {"a digest in capitals": f"{A.upper()}: {{id: alice, roles: [dev]}}\n{B}: {{id: bob}}\n"}  # fmt: skip


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_one_is_added_and_everything_stays(text: str) -> None:
    file = KeyFile(text, "keys.yaml")
    before = dict(file.keys)
    file.add(C, ALICE)
    assert file.keys == {**before, C: ALICE}
    assert file.text.startswith(text)


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("gone", [{A}, {B}, {A, B}])
def test_some_are_removed_and_comments_stay(text: str, gone: set[str]) -> None:
    file = KeyFile(text, "keys.yaml")
    kept = {digest: key for digest, key in file.keys.items() if digest not in gone}
    file.remove(gone)
    assert file.keys == kept
    assert not any(digest in file.text.lower() for digest in gone)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in file.text.splitlines() if line.startswith("#")] == comments


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_some_expire_and_the_rest_stays(text: str) -> None:
    file = KeyFile(text, "keys.yaml")
    before = dict(file.keys)
    file.expire({A}, AT)
    assert file.keys == {**before, A: before[A]._replace(expires=AT)}
    assert text.partition(B)[2] == file.text.partition(B)[2]
    assert text.count("#") == file.text.count("#")
    file.expire({A, B}, AT + timedelta(days=1))
    assert file.keys[A].expires == AT
    assert file.keys[B].expires == AT + timedelta(days=1)


NOT_IN_PLACE: dict[str, str] = {
    "one mapping in braces": f"{{{A}: {{id: alice}}, {B}: {{id: bob}}}}\n",
    "an empty one": "{}\n",
    "one that others refer to": f"{A}: &a {{id: alice}}\n{B}: *a\n",
    "a document's end": f"{A}: {{id: alice}}\n...\n",
}


CHANGES = {
    "add": lambda file: file.add(C, ALICE),
    "remove": lambda file: file.remove({A}),
    "expire": lambda file: file.expire({A, B}, AT),
}
REFUSED = {
    "one mapping in braces": {"add", "remove"},
    "an empty one": {"add"},
    "one that others refer to": {"remove", "expire"},
    "a document's end": {"add", "remove"},
}


@pytest.mark.parametrize("change_it", CHANGES)
@pytest.mark.parametrize("layout", NOT_IN_PLACE)
def test_what_cannot_be_changed_in_place_is_left(layout: str, change_it: str) -> None:
    text = NOT_IN_PLACE[layout]
    file = KeyFile(text, "keys.yaml")
    before = dict(file.keys)
    if change_it not in REFUSED[layout]:
        CHANGES[change_it](file)
        return
    with pytest.raises(IdentityFault, match="in place"):
        CHANGES[change_it](file)
    assert (file.text, file.keys) == (text, before)


names = st.text(min_size=1, max_size=20).filter(is_name)
moments = st.datetimes(datetime(1971, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC)).map(
    lambda at: at.replace(microsecond=0)
)
keys = st.builds(
    Key,
    st.builds(
        Principal,
        names,
        st.lists(names, max_size=3).map(tuple),
        names | st.just(""),
        kind=st.just("api_keys"),
    ),
    moments | st.none(),
    moments | st.none(),
    names | st.just(""),
)


@given(keys, st.sampled_from(list(LAYOUTS.values())))
def test_whatever_is_added_is_read_and_removed_again(key: Key, text: str) -> None:
    file = KeyFile(text, "keys.yaml")
    before = dict(file.keys)
    file.add(C, key)
    assert file.keys[C] == key
    file.remove({C})
    assert file.keys == before
    assert file.text.rstrip("\n") == text.rstrip("\n")


@given(moments)
def test_a_moment_is_read_as_it_was_written(at: datetime) -> None:
    assert moment(stamp(at)) == at


MOMENTS: dict[str, datetime | None] = {
    "2027-01-31": datetime(2027, 1, 31, tzinfo=UTC),
    "2027-01-31T12:00:00Z": AT,
    "2027-01-31t12:00:00z": AT,
    "2027-01-31 13:00:00+01:00": AT,
    "2027-01-31T12:00:00.5Z": AT.replace(microsecond=500_000),
    "2027-01-31T12:00:00": None,
    "2027-01-31T12:00Z": None,
    "2027-02-30": None,
    "0001-01-01T00:00:00+23:59": None,
    "20270131": None,
    "2027-W05": None,
    "\u0662\u0660\u0662\u0667-01-31": None,
    "tomorrow": None,
    "": None,
}


@pytest.mark.parametrize(("text", "expected"), MOMENTS.items(), ids=MOMENTS)
def test_moments(text: str, expected: datetime | None) -> None:
    assert moment(text) == expected


# -- the file itself


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with change(path, create=True) as file:
        file.add(C, ALICE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key_file(path) == {C: ALICE}
    assert os.listdir(tmp_path) == ["keys.yaml"]


def test_a_file_keeps_its_mode_and_its_place_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "keys.yaml", tmp_path / "keys.yaml"
    real.write_text(f"{A}: {{id: alice}}\n")
    real.chmod(0o640)
    link.symlink_to(real)
    with change(link) as file:
        file.add(C, ALICE)
    assert link.is_symlink()
    assert set(read_key_file(real)) == {A, C}
    assert real.stat().st_mode & 0o777 == 0o640


def test_what_goes_wrong_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"{A}: {{id: alice}}\n")

    def interrupted() -> None:
        with change(path) as file:
            file.add(C, ALICE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(read_key_file(path)) == {A}
    assert os.listdir(tmp_path) == ["keys.yaml"]


@pytest.mark.parametrize("text", [None, "not: [good", f"{A}: {{}}\n"])
def test_a_file_that_is_none_is_said(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(IdentityFault, match=r"keys\.yaml"), change(path) as file:
        file.add(C, ALICE)
    assert path.exists() == (text is not None)


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    digests = [sha256(bytes([number])).hexdigest() for number in range(24)]

    def add(digest: str) -> None:
        with change(path, create=True) as file:
            file.add(digest, ALICE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, digests))
    assert set(read_key_file(path)) == set(digests)
