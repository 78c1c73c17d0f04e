"""The settings as a whole: the contract, what holds between sections, digest and secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from proxy.config import ConfigFault, SecretRef, Settings, load
from proxy.config.upstreams import Upstream
from proxy.config.values import is_loopback

# Every key of the contract, as operators write it.
CONTRACT = """
listen: {host: 127.0.0.1, port: 8787}
admin:  {host: 127.0.0.1, port: 8788}
workers: 1
upstreams:
  - name: openai
    base_url: https://api.openai.com/v1
    models: ["*"]
    auth: passthrough
identity:
  - {kind: api_keys, path: keys.yaml}
  - {kind: jwt, jwks: https://idp.example/keys, audience: callgate, roles_claim: roles}
  - {kind: header, id: x-user, roles: x-roles, tenant: x-tenant, trusted: [127.0.0.0/8]}
  - {kind: passthrough}
  - {kind: anonymous, roles: []}
policies: {engine: embedded, paths: [policies]}
tools: {paths: [schemas/tools], unregistered: validate}
guards:
  loop: {max_calls: 25, max_identical: 3, max_similar: 5, mode: shadow, on_error: allow}
  schema: {coerce: true, mode: shadow, on_error: allow}
  policy: {timeout_s: 1.0, mode: shadow, on_error: allow}
  limits: {per_minute: 10, usd_per_day: 2.5, mode: shadow, on_error: allow}
  cache: {max_entries: 10000, mode: shadow, on_error: deny}
approvals: {accept: [code, yes], ttl_s: 900, wait_s: 0}
store: {kind: memory}
audit: {sinks: [{kind: jsonl, path: audit/}], capture: full, on_failure: deny}
limits: {max_request_bytes: 1000000, max_rounds: 3, max_held_bytes: 100000}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "callgate.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_accepts_the_contract(tmp_path: Path) -> None:
    settings = load(written(tmp_path, CONTRACT), {})
    assert [way.kind for way in settings.identity] == [
        "api_keys",
        "jwt",
        "header",
        "passthrough",
        "anonymous",
    ]
    assert settings.approvals.accept == ("code", "yes")
    assert settings.policies.paths == (tmp_path / "policies",)
    assert settings.guards.schema_.mode == "shadow"


def test_defaults_are_safe() -> None:
    settings = load(None, {})
    assert is_loopback(settings.listen.host)
    assert is_loopback(settings.admin.host)
    assert settings.upstreams[0].base_url == "https://api.openai.com/v1"
    assert [way.kind for way in settings.identity] == ["passthrough", "anonymous"]
    guards = {name: getattr(settings.guards, name) for name in type(settings.guards).model_fields}
    assert {guard.mode for guard in guards.values()} == {"enforce"}
    assert {name for name, guard in guards.items() if guard.on_error == "allow"} == {"cache"}
    assert settings.audit.on_failure == "deny"
    assert settings.tools.unregistered == "validate"
    assert all(upstream.tls_verify for upstream in settings.upstreams)


def test_constructing_never_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "CALLGATE_LISTEN__PORT", "9000")
    assert Settings().listen.port == 8787
    assert load(None, {}).listen.port == 8787
    assert load().listen.port == 9000


def test_settings_are_frozen() -> None:
    settings = load(None, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.listen.port = 1


HOSTS = [
    ("127.0.0.1", True), ("127.9.9.9", True), ("localhost", True), ("LOCALHOST", True), ("::1", True),
    ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False), ("10.0.0.1", False),
    ("::ffff:10.0.0.1", False), ("localhost.example", False), ("127.0.0.1.example", False), ("0", False),
]  # fmt: skip


@pytest.mark.parametrize(("host", "loopback"), HOSTS)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


OPEN = "{listen: {host: 0.0.0.0}, %s}"
OWN_KEY = "upstreams: [{auth: {env: KEY}}]"
OWN_HEADER = "upstreams: [{headers: {api-key: {file: key}}}]"
DOORS = [
    ("not written down", "workers: 1", "no identity is written down"),
    ("anonymous, written down", "identity: [{kind: anonymous}]", None),
    ("passthrough alone", "identity: [{kind: passthrough}]", None),
    ("passthrough with Callgate's key", f"{OWN_KEY}, identity: [{{kind: passthrough}}]", "anyone on 0.0.0.0"),
    ("passthrough with a key in a header", f"{OWN_HEADER}, identity: [{{kind: passthrough}}]", "anyone on"),
    ("the same for anyone", f"{OWN_KEY}, identity: [{{kind: passthrough}}, {{kind: anonymous}}]", None),
    ("own keys", f"{OWN_KEY}, identity: [{{kind: api_keys, path: k}}]", None),
]


@pytest.mark.parametrize(("rest", "fault"), [d[1:] for d in DOORS], ids=[d[0] for d in DOORS])
def test_off_loopback_only_if_written_down(tmp_path: Path, rest: str, fault: str | None) -> None:
    path = written(tmp_path, OPEN % rest)
    if fault is None:
        assert load(path, {}).listen.host == "0.0.0.0"
        return
    with pytest.raises(ConfigFault) as refusal:
        load(path, {})
    assert len(refusal.value.faults) == 1
    assert refusal.value.faults[0].startswith("identity: ")
    assert fault in refusal.value.faults[0]
    assert "{kind: anonymous}" in refusal.value.faults[0]


def test_the_same_settings_on_loopback_need_no_identity(tmp_path: Path) -> None:
    assert load(written(tmp_path, f"{{{OWN_KEY}, identity: [{{kind: passthrough}}]}}"), {})


BASES = [
    ("https://api.openai.com", "https://api.openai.com", "https://api.openai.com/v1"),
    ("https://api.openai.com/", "https://api.openai.com", "https://api.openai.com/v1"),
    ("https://api.openai.com/v1", "https://api.openai.com", "https://api.openai.com/v1"),
    ("https://api.openai.com/v1/", "https://api.openai.com", "https://api.openai.com/v1"),
    ("http://[::1]:8080", "http://[::1]:8080", "http://[::1]:8080/v1"),
    ("https://host/api/v1", "https://host/api", "https://host/api/v1"),
    ("https://host/v1beta/openai/", "https://host/v1beta/openai", "https://host/v1beta/openai"),
    ("https://host/paas/v4", "https://host/paas/v4", "https://host/paas/v4"),
]


@pytest.mark.parametrize(("base_url", "root", "versioned"), BASES)
def test_base_url(base_url: str, root: str, versioned: str) -> None:
    upstream = Upstream(base_url=base_url)
    assert (upstream.root, upstream.versioned) == (root, versioned)


SECRETS = [
    ("a variable", {"env": "KEY"}, {"KEY": "s3cret"}, None, "s3cret"),
    ("an unset variable", {"env": "KEY"}, {}, None, ConfigFault),
    ("an empty variable", {"env": "KEY"}, {"KEY": ""}, None, ConfigFault),
    ("two lines", {"env": "KEY"}, {"KEY": "s3cret\r\nx-evil: 1"}, None, ConfigFault),
    ("a file", {"file": "key"}, {}, b"s3cret\r\n", "s3cret"),
    ("no file", {"file": "key"}, {}, None, ConfigFault),
    ("an empty file", {"file": "key"}, {}, b"\n", ConfigFault),
    ("a file that is not text", {"file": "key"}, {}, b"s3cret\xff", ConfigFault),
    ("a large file", {"file": "key"}, {}, b"s3cret" * 20_000, ConfigFault),
]


@pytest.mark.parametrize(
    ("ref", "environ", "content", "outcome"), [s[1:] for s in SECRETS], ids=[s[0] for s in SECRETS]
)
def test_secrets_are_resolved(
    tmp_path: Path,
    ref: dict[str, str],
    environ: dict[str, str],
    content: bytes | None,
    outcome: str | type[ConfigFault],
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    secret = SecretRef(env=ref.get("env"), file=tmp_path / ref["file"] if "file" in ref else None)
    if isinstance(outcome, str):
        assert secret.resolve(environ) == outcome
        return
    with pytest.raises(ConfigFault) as fault:
        secret.resolve(environ)
    assert "s3cret" not in str(fault.value)
    assert "(" in fault.value.faults[0]


def test_every_secret_is_told_with_its_key(tmp_path: Path) -> None:
    text = """
    upstreams: [{auth: {env: A}, headers: {api-key: {file: b}, x-plain: c}}]
    policies: {engine: opa, opa: {token: {env: T}}}
    store: {kind: redis, url: {env: R}}
    """
    places = {path: ref.place for path, ref in load(written(tmp_path, text), {}).secrets()}
    assert places == {
        "upstreams[0].auth": "environment variable A",
        "upstreams[0].headers.api-key": f"file {tmp_path / 'b'}",
        "policies.opa.token": "environment variable T",
        "store.url": "environment variable R",
    }


def test_the_digest_tells_settings_apart_and_nothing_else(tmp_path: Path) -> None:
    plain = load(None, {}).digest
    assert len(plain) == 64
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    defaults = load(written(tmp_path, "listen: {port: 8787}"), {"SECRET": "x"})
    assert defaults.digest == plain, "writing a default down changes nothing"
    contract = [load(written(tmp_path / name, CONTRACT), {}).digest for name in "ab"]
    assert contract[0] == contract[1] != plain, "nor does the place of the folder"
    assert load(None, {"CALLGATE_LISTEN__PORT": "9000"}).digest != plain
    turned = load(written(tmp_path, "{limits: {drain_s: 1}, workers: 1}"), {}).digest
    assert turned == load(written(tmp_path, "{workers: 1, limits: {drain_s: 1.0}}"), {}).digest != plain


def test_no_secret_is_shown_or_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "upstreams: [{auth: {env: KEY}}]")
    digests = set()
    for secret in ("s3cret-1", "s3cret-2"):
        monkeypatch.setenv("KEY", secret)
        settings = load(path)
        assert secret not in f"{settings!r} {settings.model_dump_json()}"
        digests.add(settings.digest)
    assert len(digests) == 1
