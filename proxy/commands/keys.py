"""`callgate keys`: Callgate's own API keys, of which the file holds only the SHA-256."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from proxy.commands.terminal import err, out, refuse
from proxy.http.identity.api_keys import KEY_PREFIX
from proxy.http.identity.key_editing import KeyFile, change, stamp
from proxy.http.identity.key_file import IdentityFault, Key, is_name, moment, read_key_file
from proxy.http.identity.recognising import digest_of
from proxy.model import Principal

group = typer.Typer(
    help="Callgate's own API keys. A running Callgate follows the file.", no_args_is_help=True
)

_KEY_BYTES = 32
_SHORT = 12
_MIN_PREFIX = 8
_DURATION = re.compile(r"(\d{1,4})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

File = Annotated[Path, typer.Option("--file", "-f", help="The key file (path of kind api_keys).")]
Id = Annotated[str, typer.Option("--id", help="Whose key it is: the principal's id.")]
Tenant = Annotated[str, typer.Option(help="The principal's tenant.")]
Expires = Annotated[str, typer.Option(help="30m, 24h, 90d or 12w from now, a date, or a date and time.")]
Note = Annotated[str, typer.Option(help="A line for people.")]


@group.command("add")
def keys_add(
    file: File,
    id: Id,
    role: Annotated[list[str] | None, typer.Option(help="A role that it has. May be repeated.")] = None,
    tenant: Tenant = "",
    expires: Expires = "",
    note: Note = "",
) -> None:
    """Make a key and print it, this once. The file is made, for its owner alone, where there is none."""
    owner = Principal(id, tuple(dict.fromkeys(role or ())), tenant, kind="api_keys")
    _check_names({"--id": [id], "--role": owner.roles, "--tenant": _given(tenant), "--note": _given(note)})
    key = Key(owner, _when(expires, "--expires"), _now(), note)
    with _changing(file, create=True) as keys:
        secret = _made(keys, key)
    _tell(secret, file, key)


@group.command("rotate")
def keys_rotate(
    file: File,
    id: Id,
    tenant: Annotated[str | None, typer.Option(help="The principal's tenant.")] = None,
    grace: Annotated[str, typer.Option(help="How long the old keys go on working: 30m, 24h, 7d.")] = "24h",
    expires: Expires = "",
    note: Note = "",
) -> None:
    """Make a new key for a principal and print it, this once; its old keys expire after the grace."""
    _check_names({"--note": _given(note)})
    new_expiry = _when(expires, "--expires")
    old_expiry = _now() + _duration(grace, "--grace")
    with _changing(file) as keys:
        old = {digest: key for digest, key in _of(keys.keys, id, tenant).items() if not _expired(key)}
        owners = {key.owner.roles for key in old.values()}
        if len(owners) != 1:
            why = "has no key that works" if not old else "has keys with different roles"
            refuse("Nothing was changed", [f"{id} {why} (use callgate keys add)"])
        key = Key(next(iter(old.values())).owner, new_expiry, _now(), note)
        keys.expire(old, old_expiry)
        secret = _made(keys, key)
    _tell(secret, file, key)
    err.print(f"{len(old)} older: until {stamp(old_expiry)} at the latest.", markup=False, soft_wrap=True)


@group.command("revoke")
def keys_revoke(
    file: File,
    id: Annotated[str, typer.Option(help="All keys of this principal.")] = "",
    tenant: Annotated[str | None, typer.Option(help="With --id: the principal's tenant.")] = None,
    digest: Annotated[
        str, typer.Option(help=f"The key whose SHA-256 begins so, {_MIN_PREFIX} digits or more.")
    ] = "",
    key: Annotated[str, typer.Option(help="'-': the key that is on standard input.")] = "",
) -> None:
    """Remove keys: of a principal, or one."""
    if bool(id) + bool(digest) + bool(key) != 1:
        refuse("Nothing was changed", ["name what to revoke (one of --id, --digest and --key -)"])
    if key and key != "-":
        refuse(
            "Nothing was changed", ["a key in a command is seen by others (write --key -, and send it to it)"]
        )
    if digest and len(digest) < _MIN_PREFIX:
        refuse("Nothing was changed", [f"--digest is too short (write {_MIN_PREFIX} digits or more)"])
    prefix = digest_of(sys.stdin.readline().strip()) if key else digest.lower()
    with _changing(file) as keys:
        found = (
            _of(keys.keys, id, tenant) if id else {d: k for d, k in keys.keys.items() if d.startswith(prefix)}
        )
        if not found or (not id and len(found) > 1):
            refuse("Nothing was changed", ["there is no such key" if not found else "several keys begin so"])
        keys.remove(found)
    for gone, was in found.items():
        out.print(f"revoked {gone[:_SHORT]} of {was.owner.id}", markup=False, soft_wrap=True)


@group.command("list")
def keys_list(file: File) -> None:
    """Show whose keys there are and how long they work, never a key."""
    try:
        keys = read_key_file(file)
    except IdentityFault as exc:
        refuse("The key file has faults", exc.faults)
    rows = [("DIGEST", "ID", "ROLES", "TENANT", "CREATED", "EXPIRES", "NOTE")]
    for digest, key in keys.items():
        expires = stamp(key.expires) + " (expired)" * _expired(key) if key.expires else "never"
        created = stamp(key.created) if key.created else ""
        owner = key.owner
        rows.append(
            (digest[:_SHORT], owner.id, ",".join(owner.roles), owner.tenant, created, expires, key.note)
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        # Lines that tools can read, however narrow the terminal is.
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _changing(file: Path, create: bool = False) -> Iterator[KeyFile]:
    try:
        with change(file, create) as keys:
            yield keys
    except IdentityFault as exc:
        refuse("Nothing was changed", exc.faults)


def _made(keys: KeyFile, key: Key) -> str:
    """A new key, which only the caller knows: 256 bits that nobody can guess."""
    secret = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    keys.add(digest_of(secret), key)
    return secret


def _tell(secret: str, file: Path, key: Key) -> None:
    """The key alone to standard output, where a script takes it from; the rest is for people."""
    typer.echo(secret)
    until = f"until {stamp(key.expires)}" if key.expires else "without end"
    said = f"Added to {file} for {key.owner.id}, {until}. Only its SHA-256 is kept: it is not shown again."
    err.print(said, markup=False, soft_wrap=True)


def _of(keys: Mapping[str, Key], id: str, tenant: str | None) -> dict[str, Key]:
    """The keys of a principal; an id that several tenants have needs the tenant too."""
    found = {digest: key for digest, key in keys.items() if key.owner.id == id}
    if tenant is None and len(tenants := {key.owner.tenant for key in found.values()}) > 1:
        known = ", ".join(repr(name) for name in sorted(tenants))
        refuse(
            "Nothing was changed",
            [f"{id} is a principal of several tenants (name one with --tenant: {known})"],
        )
    return {digest: key for digest, key in found.items() if tenant in (None, key.owner.tenant)}


def _given(value: str) -> Sequence[str]:
    return [value] if value else []


def _check_names(given: Mapping[str, Sequence[str]]) -> None:
    wrong = [option for option, values in given.items() if not all(map(is_name, values))]
    if wrong:
        refuse("Nothing was changed", [f"{option} is not one short line of text" for option in wrong])


def _when(text: str, option: str) -> datetime | None:
    if not text:
        return None
    at = _now() + _duration(text, option) if _DURATION.fullmatch(text) else moment(text)
    if at is None:
        refuse(
            "Nothing was changed", [f"{option} is no time (write 90d, 2027-01-31 or 2027-01-31T12:00:00Z)"]
        )
    if at <= _now():
        refuse("Nothing was changed", [f"{option} is in the past"])
    return at.replace(microsecond=0)


def _duration(text: str, option: str) -> timedelta:
    found = _DURATION.fullmatch(text)
    if found is None:
        refuse("Nothing was changed", [f"{option} is no time span (write 30m, 24h, 90d or 12w)"])
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _expired(key: Key) -> bool:
    return key.expires is not None and key.expires <= _now()


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
