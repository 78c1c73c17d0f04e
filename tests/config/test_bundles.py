"""The settings of bundles: what they say, what they refuse, and what keys they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.app import Worker
from proxy.config import ConfigFault, load
from proxy.parts.bundles import local_bundles, remote_bundles
from proxy.workers.process import order, read_order

SECRET = "s" * 32
URL = "https://bundles.example.com/callgate.tar.gz"


def loaded(folder: Path, *bundles: dict[str, Any], **policies: Any) -> Any:
    file = folder / "callgate.yaml"
    file.write_text(yaml.safe_dump({"policies": {"bundles": list(bundles), **policies}}))
    return load(file, {})


def faults_of(folder: Path, *bundles: dict[str, Any], **policies: Any) -> list[str]:
    with pytest.raises(ConfigFault) as caught:
        loaded(folder, *bundles, **policies)
    return list(caught.value.faults)


def key(**members: Any) -> dict[str, Any]:
    return {"keys": [{"algorithm": "HS256", "key": {"env": "KEY"}} | members]}


@pytest.mark.parametrize(
    ("bundle", "fault"),
    [
        ({}, "policies.bundles[0]: a bundle is in one place (write url or path)"),
        ({"url": URL, "path": "b"}, "policies.bundles[0]: a bundle is in one place"),
        ({"url": "http://bundles.example.com/b"}, "policies.bundles[0].url: is not encrypted"),
        ({"url": "http://127.0.0.1.example.com/b"}, "policies.bundles[0].url: is not encrypted"),
        ({"url": "file:///b.tar.gz"}, "policies.bundles[0].url: is not a URL with a host"),
        ({"url": "https://user:secret@example.com/b"}, "policies.bundles[0].url: holds credentials"),
        ({"path": "b", "token": {"env": "T"}}, "token is for a url (leave it out beside path)"),
        ({"path": "b", "poll_s": 5}, "poll_s is for a url"),
        ({"url": URL, "token": "t0ken"}, "policies.bundles[0].token: should be a mapping"),
        ({"url": URL, "poll_s": 0.5}, "policies.bundles[0].poll_s: should be greater than or equal to 1"),
        ({"url": URL, "verification": {}}, "policies.bundles[0].verification.keys: is missing"),
        ({"url": URL, "verification": {"keys": []}}, "policies.bundles[0].verification.keys: "),
        ({"url": URL, "verification": key(algorithm="none")}, "keys[0].algorithm: should be 'RS256'"),
        (
            {"url": URL, "verification": {"keys": key()["keys"] * 2}},
            "verification.keys: two are named 'default' (give each its own id)",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, bundle: dict[str, Any], fault: str) -> None:
    (found,) = faults_of(tmp_path, bundle)
    assert fault in found
    assert "t0ken" not in found


@pytest.mark.parametrize("url", [URL, "http://127.0.0.1:8080/b", "http://localhost/b", "http://[::1]/b?k=v"])
def test_what_is_encrypted_or_on_this_machine_is_taken(tmp_path: Path, url: str) -> None:
    (remote,) = remote_bundles(loaded(tmp_path, {"url": url}), {})
    assert remote.place.url == url
    assert "?" not in remote.place.label


def test_bundles_are_for_the_embedded_engine(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, {"url": URL}, engine="opa")
    assert fault == "policies: bundles are for the embedded engine (configure them in the OPA server)"


def test_settings_lead_to_bundles(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        {"url": URL, "token": {"env": "TOKEN"}, "poll_s": 5, "timeout_s": 2, "max_bytes": 2048},
        {"path": "b.tar.gz", "verification": key(id="ours") | {"scope": "read"}},
    )
    environ = {"TOKEN": "t0ken", "KEY": SECRET}
    (remote,) = remote_bundles(settings, environ)
    place = remote.place
    assert (place.url, place.token, place.tls, place.poll_s) == (URL, "t0ken", True, 5)
    assert (place.timeout_s, place.max_bytes) == (2, 2048)
    (local,) = local_bundles(settings, environ)
    assert local.content == tmp_path / "b.tar.gz"
    assert local.verification is not None
    assert local.verification.scope == "read"
    assert [(k.id, k.algorithm, k.key) for k in local.verification.keys] == [
        ("ours", "HS256", SECRET.encode())
    ]
    assert not {"t0ken", SECRET} & set(settings.model_dump_json().split('"'))


def test_workers_are_told_of_bundles(tmp_path: Path) -> None:
    settings = loaded(tmp_path, {"url": URL}, {"path": "b.tar.gz", "verification": key()})
    told, _ = read_order(order(settings, Worker(1, tmp_path / "socket")))
    assert told.policies == settings.policies


@pytest.mark.parametrize(
    ("bundle", "environ", "fault"),
    [
        ({"url": URL, "token": {"env": "TOKEN"}}, {}, "environment variable TOKEN: no secret there"),
        ({"url": URL, "verification": key()}, {}, "environment variable KEY: no secret there"),
        (
            {"url": URL, "verification": key()},
            {"KEY": "short"},
            "policies.bundles[0].verification: key 'default' in environment variable KEY: "
            "the secret is shorter than 32 bytes, which HS256 asks for",
        ),
        (
            {"url": URL, "verification": key(algorithm="RS256")},
            {"KEY": SECRET},
            "it is not the PEM of a public key or a certificate",
        ),
        ({"url": URL, "ca_file": "none.pem"}, {}, "policies.bundles[0].ca_file: "),
    ],
)
def test_a_secret_or_key_that_is_missing_or_wrong_is_named(
    tmp_path: Path, bundle: dict[str, Any], environ: dict[str, str], fault: str
) -> None:
    with pytest.raises(ConfigFault) as caught:
        remote_bundles(loaded(tmp_path, bundle), environ)
    assert fault in caught.value.faults[0]
    assert SECRET not in caught.value.faults[0]
