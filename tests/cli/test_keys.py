"""``callgate keys``: what it prints, what it writes, and what works afterwards."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from multidict import CIMultiDict, CIMultiDictProxy
from typer.testing import CliRunner

from proxy.cli import app
from proxy.http.identity import ApiKeys, Identity, Unidentified
from proxy.http.identity.key_file import read_key_file
from proxy.http.identity.recognising import digest_of
from proxy.model import Principal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def run(*arguments: str, file: Path, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["keys", arguments[0], "--file", str(file), *arguments[1:]], input=given)


def made(*arguments: str, file: Path) -> str:
    """The key that a command printed: that, and nothing else."""
    done = run(*arguments, file=file)
    assert done.exit_code == 0, done.output
    assert re.fullmatch(r"cg_[A-Za-z0-9_-]{43}\n", done.stdout)
    return done.stdout.strip()


def who(file: Path, key: str, after: timedelta = timedelta()) -> Principal | None:
    """Whom the key names, now or later."""
    clock = datetime.now(UTC) + after
    identity = Identity([ApiKeys(file, clock=clock.timestamp)])
    try:
        headers = CIMultiDictProxy(CIMultiDict({"authorization": f"Bearer {key}"}))
        return identity.identify(headers, None).principal
    except Unidentified:
        return None


def test_a_key_that_is_added_works_and_is_not_kept(file: Path) -> None:
    options = [
        "--id",
        "support-bot",
        "--role",
        "support",
        "--role",
        "dev",
        "--tenant",
        "acme",
        "--note",
        "CI",
    ]
    key = made("add", *options, file=file)
    other = made("add", "--id", "ops", file=file)
    assert who(file, key) == Principal("support-bot", ("support", "dev"), "acme", kind="api_keys")
    assert who(file, other) == Principal("ops", kind="api_keys")
    text = file.read_text()
    assert key not in text
    assert digest_of(key) in text
    assert file.stat().st_mode & 0o777 == 0o600
    listed = run("list", file=file)
    assert all(part in listed.stdout for part in ("support-bot", "ops", "never", digest_of(key)[:12]))
    assert key not in listed.output


@pytest.mark.parametrize(
    ("expires", "works_for"),
    [("90d", timedelta(days=90)), ("30m", timedelta(minutes=30)), ("12w", timedelta(weeks=12))],
)
def test_a_key_expires(file: Path, expires: str, works_for: timedelta) -> None:
    key = made("add", "--id", "a", "--expires", expires, file=file)
    assert who(file, key, works_for - timedelta(minutes=1)) is not None
    assert who(file, key, works_for) is None


def test_a_key_expires_at_a_moment(file: Path) -> None:
    key = made("add", "--id", "a", "--expires", "2999-01-31T12:00:00+01:00", file=file)
    assert read_key_file(file)[digest_of(key)].expires == datetime(2999, 1, 31, 11, tzinfo=UTC)


def test_rotation_leaves_the_old_key_its_grace(file: Path) -> None:
    file.write_text("# by hand\n")
    old = made("add", "--id", "a", "--role", "dev", "--tenant", "t", file=file)
    new = made("rotate", "--id", "a", "--grace", "24h", file=file)
    assert who(file, old) == who(file, new) == Principal("a", ("dev",), "t", kind="api_keys")
    assert who(file, old, timedelta(hours=24)) is None
    assert who(file, new, timedelta(days=9999)) is not None
    newest = made("rotate", "--id", "a", "--grace", "0m", "--expires", "90d", file=file)
    assert [who(file, key) is not None for key in (old, new, newest)] == [False, False, True]
    assert file.read_text().startswith("# by hand\n")
    assert run("list", file=file).stdout.count("(expired)") == 2


def test_a_key_that_is_revoked_is_gone(file: Path) -> None:
    keys = [made("add", "--id", id, file=file) for id in ("a", "a", "b", "c", "d")]
    assert run("revoke", "--id", "a", file=file).exit_code == 0
    assert run("revoke", "--digest", digest_of(keys[2])[:12].upper(), file=file).exit_code == 0
    assert run("revoke", "--key", "-", file=file, given=f"{keys[3]}\n").exit_code == 0
    assert [who(file, key) is not None for key in keys] == [False, False, False, False, True]


TENANTS = "".join(f"{digest_of(t)}: {{id: a, tenant: {t}}}\n" for t in ("t1", "t2"))
ROLES = "".join(f"{digest_of(r)}: {{id: a, roles: [{r}]}}\n" for r in ("r1", "r2"))
OVER = f"{digest_of('x')}: {{id: a, expires: 2020-01-01}}\n"
REFUSED: dict[str, tuple[str, list[str], str]] = {
    "an id of two lines": ("", ["add", "--id", "a\nb"], "--id"),
    "a role that is none": ("", ["add", "--id", "a", "--role", " "], "--role"),
    "an end in the past": ("", ["add", "--id", "a", "--expires", "2020-01-01"], "in the past"),
    "an end that is none": ("", ["add", "--id", "a", "--expires", "soon"], "is no time"),
    "an end without an offset": ("", ["add", "--id", "a", "--expires", "2999-01-01T00:00:00"], "is no time"),
    "a grace that is none": (TENANTS, ["rotate", "--id", "a", "--grace", "2027-01-01"], "no time span"),
    "rotating nobody's": (TENANTS, ["rotate", "--id", "b"], "no key that works"),
    "rotating what has expired": (OVER, ["rotate", "--id", "a"], "no key that works"),
    "rotating those of two tenants": (TENANTS, ["rotate", "--id", "a"], "name one with --tenant: 't1', 't2'"),
    "rotating those of other roles": (ROLES, ["rotate", "--id", "a"], "different roles"),
    "revoking nothing in particular": (TENANTS, ["revoke"], "name what to revoke"),
    "revoking in two ways": (TENANTS, ["revoke", "--id", "a", "--key", "-"], "name what to revoke"),
    "revoking nobody's": (TENANTS, ["revoke", "--id", "b"], "no such key"),
    "revoking those of two tenants": (TENANTS, ["revoke", "--id", "a"], "several tenants"),
    "revoking by too little": (TENANTS, ["revoke", "--digest", digest_of("t1")[:7]], "too short"),
    "revoking what is not there": (TENANTS, ["revoke", "--digest", "0" * 8], "no such key"),
    "a key in the command": (TENANTS, ["revoke", "--key", "cg_x"], "seen by others"),
    "a file with faults": ("a: {}", ["add", "--id", "a"], "not a SHA-256"),
}


@pytest.mark.parametrize(("text", "arguments", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_changes_nothing(file: Path, text: str, arguments: list[str], why: str) -> None:
    file.write_text(text)
    done = run(*arguments, file=file)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert why in done.stderr
    assert file.read_text() == text


def test_one_tenants_keys_are_revoked(file: Path) -> None:
    file.write_text(TENANTS)
    assert run("revoke", "--id", "a", "--tenant", "t1", file=file).exit_code == 0
    assert [key.owner.tenant for key in read_key_file(file).values()] == ["t2"]


@pytest.mark.parametrize("command", [["list"], ["revoke", "--id", "a"], ["rotate", "--id", "a"]])
def test_a_file_that_is_not_there_is_said(file: Path, command: list[str]) -> None:
    done = run(*command, file=file)
    assert done.exit_code == 1
    assert str(file) in done.stderr.replace("\n", "")
    assert not file.exists()


def test_what_is_listed_is_shown_as_it_is(file: Path) -> None:
    file.write_text(f'{digest_of("x")}: {{id: "[red]a", note: "[/]"}}\n')
    assert "[red]a" in run("list", file=file).stdout
