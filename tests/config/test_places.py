"""What is missing is named with the key that asks for it, and a place that is taken with its cure."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from proxy import parts
from proxy.app import build, cannot_listen, listen
from proxy.config import ConfigFault, Settings
from proxy.engines.sources.policyset import PolicyFault

ISSUER = {"kind": "jwt", "jwks": "https://idp.test/keys", "audience": "a"}
UPSTREAM = {"name": "a", "base_url": "https://a.test/v1"}
GONE = "No such file or directory (name a file that can be read)"


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ({"policies": {"paths": ["nopol"]}}, "policies.paths[0]: nopol: no such file or directory"),
        ({"tools": {"paths": ["notool"]}}, "tools.paths[0]: notool: no such file or directory"),
        (
            {"policies": {"bundles": [{"path": "b.tar.gz"}]}},
            "policies.bundles[0].path: b.tar.gz: No such file or directory",
        ),
        (
            {"policies": {"bundles": [{"url": "https://b.test/b", "ca_file": "c.pem"}]}},
            f"policies.bundles[0].ca_file: c.pem: {GONE}",
        ),
        (
            {"policies": {"engine": "opa", "opa": {"token": {"env": "NO_TOKEN"}}}},
            "policies.opa.token: environment variable NO_TOKEN: no secret there (set the variable)",
        ),
        ({"identity": [{"kind": "api_keys", "path": "k.yaml"}]}, f"identity[0].path: k.yaml: {GONE}"),
        ({"identity": [{**ISSUER, "jwks": "k.json"}]}, f"identity[0].jwks: k.json: {GONE}"),
        ({"identity": [{**ISSUER, "ca_file": "c.pem"}]}, f"identity[0].ca_file: c.pem: {GONE}"),
        ({"upstreams": [{**UPSTREAM, "ca_file": "c.pem"}]}, f"upstreams[0].ca_file: c.pem: {GONE}"),
        (
            {"upstreams": [{**UPSTREAM, "headers": {"x-a": {"file": "s"}}}]},
            "upstreams[0].headers.x-a: file s: No such file or directory "
            "(put the secret, and nothing else, in the file)",
        ),
        (
            {"upstreams": [{**UPSTREAM, "auth": {"env": "NO_A"}}], "admin": {"token": {"env": "NO_A"}}},
            "admin.token, upstreams[0].auth: environment variable NO_A: no secret there (set the variable)",
        ),
        (
            {"store": {"kind": "redis", "url": {"env": "NO_URL"}}},
            "store.url: environment variable NO_URL: no secret there (set the variable)",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sections: dict[str, Any], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigFault) as refusal:
        build(Settings.model_validate(sections), {})
    assert refusal.value.faults == (fault,)


def test_a_file_of_authorities_without_any_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.pem").write_text("none")
    with pytest.raises(ConfigFault) as refusal:
        build(Settings.model_validate({"upstreams": [{**UPSTREAM, "ca_file": "c.pem"}]}), {})
    assert refusal.value.faults == ("upstreams[0].ca_file: c.pem: no certificates in it (write them as PEM)",)


async def test_policies_that_are_only_read_are_named_too(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    settings = Settings.model_validate({"policies": {"paths": [gone], "candidate": {"paths": [gone]}}})
    with pytest.raises(PolicyFault) as fetched:
        await parts.fetch_policies(settings)
    both = f"policies.paths[0], policies.candidate.paths[0]: {gone}: no such file or directory"
    assert fetched.value.faults == (both,)
    assert settings.policies.candidate is not None
    with pytest.raises(PolicyFault) as tried:
        await parts.proven(settings.policies.candidate)
    assert tried.value.faults == (f"policies.candidate.paths[0]: {gone}: no such file or directory",)


@pytest.mark.parametrize("section", ["listen", "admin"])
async def test_a_port_that_is_taken_is_told_with_its_cure(section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigFault) as refusal:
            await listen(web.AppRunner(web.Application()), "127.0.0.1", port, section=section)
    assert refusal.value.faults == (
        f"{section}: 127.0.0.1:{port} cannot be listened on: Address already in use "
        f"(end what listens there, or set another {section}.port)",
    )


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (OSError(errno.EADDRNOTAVAIL, "while binding"), "Cannot assign requested address (set listen.host"),
        (PermissionError(errno.EACCES, "binding"), "Permission denied (set another listen.port, from 1024"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known (set listen.host to"),
        (OSError("no such thing"), "no such thing (set listen.host to"),
    ],
)
def test_a_place_where_nobody_can_listen(exc: OSError, said: str) -> None:
    (fault,) = cannot_listen("listen", "::9", 80, exc).faults
    assert fault.startswith(f"listen: [::9]:80 cannot be listened on: {said}")
