"""Reading the file and the environment: every fault at once, each with its path and a cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigFault, Settings, load
from proxy.config.sections import RedisStore


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "callgate.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults_of(path: Path | None, environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(ConfigFault) as refusal:
        load(path, environ)
    return refusal.value.faults


# The file, and each fault's beginning and some of the rest, in any order.
FILES: list[tuple[str, list[tuple[str, str]]]] = [
    ("guards: {polcy: {}}", [("guards.polcy", "unknown key; did you mean 'policy'?")]),
    ("guards: {schema: {corce: true}}", [("guards.schema.corce", "did you mean 'coerce'?")]),
    ("wrokers: 1", [("wrokers", "did you mean 'workers'?")]),
    ("tools: {zzz: 1}", [("tools.zzz", "known here: paths, unregistered")]),
    ("upstreams: [{modls: [a]}]", [("upstreams[0].modls", "did you mean 'models'?")]),
    ("upstreams: [{auth: {enw: A}}]", [("upstreams[0].auth.enw", "did you mean 'env'?")]),
    ("store: {kind: redis, urll: a}", [("store.urll", "did you mean 'url'?")]),
    ("store: {max_entry: 500}", [("store.max_entry", "did you mean 'max_entries'?")]),
    (
        "identity: [{kind: header, truste: []}]",
        [("identity[0].truste", "did you mean 'trusted'?"), ("identity[0].trusted", "is missing")],
    ),
    ("1: 2", [("1", "unknown key")]),
    ("identity: [{kind: api_keys}]", [("identity[0].path", "is missing (YAML file")]),
    ("identity: [{kind: apikeys}]", [("identity[0]", "unknown kind (write api_keys, jwt")]),
    ("identity: [{path: k}]", [("identity[0]", "has no kind")]),
    ("identity: []", [("identity", "at least 1")]),
    ("identity: [5]", [("identity[0]", "should be a mapping")]),
    ("identity: [{kind: anonymous}, {kind: passthrough}]", [("identity", "put it last")]),
    ("identity: [{kind: passthrough}, {kind: api_keys, path: k}]", [("identity", "put api_keys before it")]),
    ("identity: [{kind: header, trusted: []}]", [("identity[0].trusted", "at least 1")]),
    ("identity: [{kind: header, trusted: [10.0.0.1/8]}]", [("identity[0].trusted", "host bits")]),
    ("identity: [{kind: header, trusted: [0.0.0.0/0]}]", [("identity[0].trusted", "trusts every peer")]),
    ("identity: [{kind: header, trusted: ['::/0']}]", [("identity[0].trusted", "trusts every peer")]),
    (
        "identity: [{kind: header, id: authorization, trusted: [10.0.0.0/8]}]",
        [("identity[0]", "carries a key")],
    ),
    (
        "identity: [{kind: header, id: X-A, roles: x-a, trusted: [10.0.0.0/8]}]",
        [("identity[0]", "one header")],
    ),
    (
        "identity: [{kind: header, id: 'x user', trusted: [10.0.0.0/8]}]",
        [("identity[0].id", "name of a header")],
    ),
    ("identity: [{kind: jwt, jwks: http://idp/k, audience: a}]", [("identity[0].jwks", "https://HOST")]),
    (
        "identity: [{kind: jwt, jwks: 'http://u:p@localhost/k', audience: a}]",
        [("identity[0].jwks", "creden")],
    ),
    ("identity: [{kind: jwt, jwks: ftp://idp/k, audience: a}]", [("identity[0].jwks", "https://HOST")]),
    ("identity: [{kind: jwt, jwks: 5, audience: a}]", [("identity[0].jwks", "path")]),
    ("identity: [{kind: jwt, jwks: k.json, audience: []}]", [("identity[0].audience", "at least 1")]),
    ("identity: [{kind: jwt, jwks: k.json, audience: 5}]", [("identity[0].audience", "list")]),
    (
        "identity: [{kind: jwt, jwks: k.json, audience: a, header: X-Api-Key}]",
        [("identity[0].header", "carries a key")],
    ),
    (
        "identity: [{kind: jwt, jwks: k, audience: a}, {kind: jwt, jwks: l, audience: a, issuer: i}]",
        [("identity", "write the issuer of each")],
    ),
    (
        "identity: [" + ", ".join(["{kind: jwt, jwks: k, audience: a, issuer: i}"] * 2) + "]",
        [("identity", "of one issuer")],
    ),
    (
        "identity: [{kind: passthrough}, {kind: jwt, jwks: k, audience: a}]",
        [("identity", "put jwt before it")],
    ),
    (
        "identity: [{kind: jwt, jwks: https://idp/k, audience: a, algorithms: [none]}]",
        [("identity[0].algorithms[0]", "RS256")],
    ),
    (
        "identity: [{kind: jwt, jwks: https://idp/k, audience: a, algorithms: [HS256]}]",
        [("identity[0].algorithms[0]", "RS256")],
    ),
    ("listen: {port: 99999}", [("listen.port", "less than or equal to 65535")]),
    ("listen: {port: 8788}", [("admin.port", "is listen.port too")]),
    ("listen:", [("listen", "has no value")]),
    ("listen: 8787", [("listen", "should be a mapping")]),
    ("workers: 2", [("workers", "set store.kind: redis")]),
    ("workers: 1.5", [("workers", "should be a whole number (write")]),
    ("guards: {policy: {timeout_s: soon}}", [("guards.policy.timeout_s", "should be a number (write")]),
    ("status: {enabled: maybe}", [("status.enabled", "should be true or false (write")]),
    ("listen: {host: 7}", [("listen.host", "should be text (put it in quotes)")]),
    ("policies: {paths: [1]}", [("policies.paths[0]", "should be a path (put it in quotes)")]),
    ("upstreams: [{name: ''}]", [("upstreams[0].name", "is empty (write at least 1)")]),
    ("policies: {paths: policies}", [("policies.paths", "should be a list")]),
    ("policies: {opa: {token: s3cret}}", [("policies.opa.token", "{env: NAME} or {file: PATH}")]),
    ("policies: {opa: {url: 'http://u:s3cret@opa'}}", [("policies.opa.url", "credentials")]),
    ("upstreams: [{auth: s3cret}]", [("upstreams[0].auth", "'passthrough', or {env: NAME}")]),
    ("upstreams: [{auth: {env: s3cret-x}}]", [("upstreams[0].auth", "not the secret itself")]),
    ("upstreams: [{auth: {}}]", [("upstreams[0].auth", "write {env: NAME} or {file: PATH}")]),
    ("upstreams: [{auth: {env: A, file: b}}]", [("upstreams[0].auth", "one place")]),
    ("upstreams: [{}, {}]", [("upstreams", "two are named 'openai'")]),
    ("upstreams: [{models: []}]", [("upstreams[0].models", "at least 1")]),
    (
        "upstreams: [{base_url: 'https://api.openai.com/v1/chat/completions/'}]",
        [("upstreams[0].base_url", "leave /chat/completions out")],
    ),
    (
        "upstreams: [{base_url: 'https://host/v1/messages'}]",
        [("upstreams[0].base_url", "leave /messages out")],
    ),
    (
        "{upstreams: [{models: [gpt-*]}], routing: [{models: [a], decide: gpt-5, answer: o4}]}",
        [("routing[0].answer", "no upstream serves 'o4'")],
    ),
    ("upstreams: [{base_url: api.openai.com}]", [("upstreams[0].base_url", "https://HOST or http://HOST")]),
    ("upstreams: [{base_url: 'file:///etc/passwd'}]", [("upstreams[0].base_url", "not a URL")]),
    ("upstreams: [{base_url: 'https://k:s3cret@host'}]", [("upstreams[0].base_url", "credentials")]),
    ("upstreams: [{base_url: 'https://host/v1?key=s3cret'}]", [("upstreams[0].base_url", "query")]),
    ("upstreams: [{base_url: 'https://host:port'}]", [("upstreams[0].base_url", "not a URL")]),
    ('upstreams: [{base_url: "https://host\\r\\nx"}]', [("upstreams[0].base_url", "not a URL")]),
    ("upstreams: [{headers: {Authorization: s3cret}}]", [("upstreams[0].headers", "in plain text")]),
    ("upstreams: [{headers: {Host: a}}]", [("upstreams[0].headers", "Callgate itself")]),
    ("upstreams: [{headers: {x-a: a, X-A: b}}]", [("upstreams[0].headers", "twice")]),
    ('upstreams: [{headers: {x-a: "a\\r\\nx-b: c"}}]', [("upstreams[0].headers.x-a", "line break")]),
    ("upstreams: [{headers: {'x a': a}}]", [("upstreams[0].headers", "name of a header")]),
    ("upstreams: [{headers: {x-a: [a]}}]", [("upstreams[0].headers.x-a", "text, or {env: NAME}")]),
    ("upstreams: [{tls_verify: false, ca_file: ca.pem}]", [("upstreams[0]", "keep one")]),
    ("store: {kind: redis, url: 'redis://:s3cret@host'}", [("store.url", "credentials")]),
    ("store: {kind: redis, url: 'redis://host/0?password=s3cret'}", [("store.url", "password")]),
    ("store: {kind: redis, url: 'http://host'}", [("store.url", "rediss://")]),
    ("store: {kind: disk}", [("store", "unknown kind (write memory, redis)")]),
    ("approvals: {accept: [maybe]}", [("approvals.accept[0]", "'code' or 'yes'")]),
    ("approvals: {ttl_s: 60, wait_s: 61}", [("approvals", "lower wait_s")]),
    ("approvals: {ttl_s: .nan}", [("approvals.ttl_s", "number")]),
    ("limits: {drain_s: .inf}", [("limits.drain_s", "number")]),
    ("limits: {max_rounds: 1e99}", [("limits.max_rounds", "whole number")]),
    ("audit: {sinks: [{kind: tape, path: a}]}", [("audit.sinks[0].kind", "'jsonl'")]),
    (
        "{workers: 0, admin: {prt: 1}, guards: {loop: {max_calls: -1}, cache: []}, listen: {port: x}}",
        [
            ("workers", "greater"),
            ("admin.prt", "'port'"),
            ("guards.loop.max_calls", "greater"),
            ("guards.cache", "mapping"),
            ("listen.port", "whole number"),
        ],
    ),
    (
        "{workers: 2, listen: {host: '::', port: 1}, admin: {host: '::', port: 1}}",
        [("workers", "redis"), ("identity", "no identity"), ("admin.port", "listen.port")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), FILES, ids=[text[:60] for text, _ in FILES])
def test_faults_of_a_file(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    faults = faults_of(written(tmp_path, text), {})
    assert len(faults) == len(expected), faults
    for place, said in expected:
        assert any(fault.startswith(f"{place}: ") and said in fault for fault in faults), faults
    assert "s3cret" not in "\n".join(faults)


UNREADABLE = [
    ("listen: {port: 1", ", line 1: not valid YAML"),
    ("a: 1\nb: s3cret: x", ", line 2: not valid YAML"),
    ("listen:\n\tport: 1", "(indent with spaces)"),
    ("workers: !!python/object/apply:os.getpid []", "line 1: not valid YAML"),
    ("a: *s", ", line 1: not valid YAML"),
    ("a: 1\nworkers: !!bool s3cret", ", line 2: not valid YAML: no value of the kind 'bool'"),
    (f"workers: {'1' * 5000}", ", line 1: not valid YAML: no value of the kind 'int'"),
    ("--- {}\n--- {}", "not valid YAML"),
    ("\x00", "character 0"),
    (b"\xff\xfe\xfa", "not UTF-8"),
    ("- listen", "not a mapping"),
    ("s3cret", "not a mapping"),
    ("[" * 5000, "nested too deeply"),
    ("? [a]\n: b", "not valid YAML"),
]


@pytest.mark.parametrize(("text", "said"), UNREADABLE, ids=[str(said) for _, said in UNREADABLE])
def test_an_unreadable_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = written(tmp_path, text)
    (fault,) = faults_of(path, {})
    assert fault.startswith(str(path))
    assert said in fault
    assert "s3cret" not in fault


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in faults_of(tmp_path / "none.yaml", {})[0]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text), {}).digest == load(None, {}).digest


DUPLICATES = [
    ("workers: 1\nlisten: {}\nworkers: 1", ["line 3: workers: already on line 1"]),
    ("listen: {port: 1, port: 2}", ["line 1: port: already on line 1"]),
    ("upstreams:\n  - name: a\n    name: b\n    auth: {env: A, env: B}", ["line 3: name", "line 4: env"]),
    ("workers: 1\n'workers': 1", ["line 2: workers"]),
]


@pytest.mark.parametrize(("text", "expected"), DUPLICATES)
def test_duplicate_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    faults = faults_of(written(tmp_path, text), {})
    assert len(faults) == len(expected)
    assert all(said in fault for said, fault in zip(expected, faults, strict=True)), faults


def test_merge_keys_are_not_duplicates(tmp_path: Path) -> None:
    text = "guards: {loop: &base {mode: shadow}, policy: {<<: *base, mode: enforce}, limits: *base}"
    guards = load(written(tmp_path, text), {}).guards
    assert (guards.loop.mode, guards.policy.mode, guards.limits.mode) == ("shadow", "enforce", "shadow")


def test_plain_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = """
    approvals: {accept: [yes]}
    audit: {capture: off}
    upstreams: [{name: 2026-01-01, models: [on, 1:30, 'y']}]
    listen: {host: '::1', port: 0123}
    guards: {schema: {coerce: false}}
    """
    settings = load(written(tmp_path, text), {})
    assert settings.approvals.accept == ("yes",)
    assert settings.audit.capture == "off"
    assert settings.upstreams[0].name == "2026-01-01"
    assert settings.upstreams[0].models == ("on", "1:30", "y")
    assert settings.listen.port == 123
    assert settings.guards.schema_.coerce is False


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    text = """
    policies: {paths: [rego, /etc/rego]}
    identity: [{kind: api_keys, path: keys.yaml}, {kind: jwt, jwks: jwks.json, audience: a}]
    upstreams: [{auth: {file: key}, ca_file: ca.pem, headers: {api-key: {file: other}}}]
    """
    settings = load(written(tmp_path, text), {"CALLGATE_TOOLS__PATHS": '["tools"]'})
    shown = settings.model_dump_json()
    assert settings.policies.paths == (tmp_path / "rego", Path("/etc/rego"))
    assert settings.tools.paths == (tmp_path / "tools",)
    assert settings.audit.sinks[0].path == tmp_path / "audit"
    assert all(str(tmp_path / name) in shown for name in ("keys.yaml", "jwks.json", "key", "ca.pem", "other"))
    assert load(None, {}).audit.sinks[0].path == Path("audit")


FILE = "listen: {host: 127.0.0.2, port: 1}\nstore: {kind: memory, max_entries: 500}"
VARIABLES: list[tuple[dict[str, str], dict[str, Any]]] = [
    ({"CALLGATE_LISTEN__PORT": "9000"}, {"listen.port": 9000, "listen.host": "127.0.0.2"}),
    ({"callgate_listen__port": "9000"}, {"listen.port": 9000}),
    ({"CALLGATE_LISTEN__PORT": ""}, {"listen.port": 1}),
    ({"CALLGATE_LISTEN": '{"port": 2}'}, {"listen.port": 2, "listen.host": "127.0.0.2"}),
    ({"CALLGATE_LISTEN": '{"port": 2}', "CALLGATE_LISTEN__PORT": "3"}, {"listen.port": 3}),
    ({"CALLGATE_GUARDS__SCHEMA__COERCE": "false"}, {"guards.schema_.coerce": False}),
    ({"CALLGATE_GUARDS__LIMITS__USD_PER_DAY": "2.5"}, {"guards.limits.usd_per_day": 2.5}),
    ({"CALLGATE_POLICIES__PATHS": '["/a", "/b"]'}, {"policies.paths": (Path("/a"), Path("/b"))}),
    ({"CALLGATE_APPROVALS__ACCEPT": '["code"]'}, {"approvals.accept": ("code",)}),
    ({"CALLGATE_STORE__MAX_ENTRIES": "700"}, {"store.max_entries": 700}),
    ({"CALLGATE_POLICIES__OPA__TOKEN__ENV": "T"}, {"policies.opa.token.env": "T"}),
    ({"CALLGATE_POLICIES__OPA__TOKEN": '{"env": "T"}'}, {"policies.opa.token.env": "T"}),
    ({"CALLGATE_ADMIN__HOST": "{}"}, {"admin.host": "{}"}),
    ({"CALLGATE_SERVICE_HOST": "10.0.0.1", "CALLGATE_PORT_8787_TCP": "tcp://x"}, {"listen.port": 1}),
    ({"CALLGATE_ADMIN_PORT": "tcp://10.0.0.1:8788", "CALLGATE_OPA_TOKEN": "s"}, {"admin.port": 8788}),
    ({"LISTEN__PORT": "9000", "XCALLGATE_LISTEN__PORT": "9000"}, {"listen.port": 1}),
]


@pytest.mark.parametrize(("environ", "expected"), VARIABLES, ids=[" ".join(e) for e, _ in VARIABLES])
def test_variables_override_the_file(
    tmp_path: Path, environ: dict[str, str], expected: dict[str, Any]
) -> None:
    settings = load(written(tmp_path, FILE), environ)
    for path, value in expected.items():
        found: Any = settings
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value


def test_a_store_can_be_set_by_variables_alone() -> None:
    environ = {
        "CALLGATE_STORE__KIND": "redis",
        "CALLGATE_STORE__URL__ENV": "REDIS_URL",
        "CALLGATE_WORKERS": "4",
    }
    settings = load(None, environ)
    assert isinstance(settings.store, RedisStore)
    assert settings.workers == 4


BAD_VARIABLES = [
    (
        {"CALLGATE_LISTEN__PROT": "1"},
        "listen.prot (set by CALLGATE_LISTEN__PROT): unknown key; did you mean 'port'?",
    ),
    ({"CALLGATE_LISTN__PORT": "1"}, "CALLGATE_LISTN__PORT: unknown key; did you mean CALLGATE_LISTEN__PORT?"),
    ({"CALLGATE_WORKER": "2"}, "CALLGATE_WORKER: unknown key; did you mean CALLGATE_WORKERS?"),
    ({"CALLGATE_ZZZ__A": "2"}, "CALLGATE_ZZZ__A: unknown key (known sections: listen"),
    ({"CALLGATE_WORKERS__A": "2"}, "CALLGATE_WORKERS__A: unknown key; workers is one number"),
    (
        {"CALLGATE_LISTEN__PORT": "s3cret"},
        "listen.port (set by CALLGATE_LISTEN__PORT): should be a whole number (write it without quotes",
    ),
    ({"CALLGATE_LISTEN": '{"port": "s3cret"'}, "CALLGATE_LISTEN: not valid JSON"),
    ({"CALLGATE_LISTEN": '{"port": 1, "port": 2}'}, "CALLGATE_LISTEN: not valid JSON"),
    ({"CALLGATE_POLICIES__PATHS": "a,b"}, "CALLGATE_POLICIES__PATHS: not valid JSON"),
    (
        {"CALLGATE_POLICIES__PATHS__0": "a"},
        "policies.paths (set by CALLGATE_POLICIES__PATHS__0): should be a list",
    ),
    (
        {"CALLGATE_POLICIES__OPA__TOKEN": "s3cret"},
        "policies.opa.token (set by CALLGATE_POLICIES__OPA__TOKEN): should",
    ),
    ({"CALLGATE_LISTEN__": "1"}, "listen. (set by CALLGATE_LISTEN__): unknown key"),
]


@pytest.mark.parametrize(("environ", "said"), BAD_VARIABLES, ids=[" ".join(e) for e, _ in BAD_VARIABLES])
def test_faults_of_variables(environ: dict[str, str], said: str) -> None:
    (fault,) = faults_of(None, environ)
    assert fault.startswith(said)
    assert "s3cret" not in fault


def test_faults_of_file_and_variables_come_together(tmp_path: Path) -> None:
    path = written(tmp_path, "workers: 0\nworkers: 0\nlisten: {prt: 1}")
    faults = faults_of(path, {"CALLGATE_LIMITZ__A": "1", "CALLGATE_ADMIN": "{"})
    places = [fault.removeprefix(f"{path}, ").split(":")[0] for fault in faults]
    assert sorted(places) == ["CALLGATE_ADMIN", "CALLGATE_LIMITZ__A", "line 2", "listen.prt", "workers"]


keys = st.sampled_from(
    [*Settings.model_fields, "kind", "name", "auth", "env", "schema", "port", "headers", "x"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.just("s3cret") | st.text(max_size=5)
trees = st.recursive(
    scalars,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(keys, below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(keys, trees, max_size=4))
def test_any_mapping_is_settings_or_worded_faults(
    tmp_path_factory: pytest.TempPathFactory, content: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    try:
        assert load(path, {}).digest
    except ConfigFault as fault:
        shown = "\n".join(fault.faults)
    else:
        shown = ""
    assert "s3cret" not in shown


@given(trees)
def test_any_variable_is_settings_or_worded_faults(value: Any) -> None:
    for name in ("CALLGATE_UPSTREAMS", "CALLGATE_STORE", "CALLGATE_STORE__URL", "CALLGATE_WORKERS"):
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            assert load(None, {name: text}).digest
        except ConfigFault as fault:
            shown = "\n".join(fault.faults)
        else:
            shown = ""
        assert "s3cret" not in shown
