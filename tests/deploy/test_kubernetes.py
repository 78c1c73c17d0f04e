"""The Kubernetes manifests: each valid for the versions we name, and true to one another and to the code."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
import regorus
import yaml
from kubernetes_validate.utils import all_versions, major_minor

from proxy import __version__
from proxy.config import Settings, load
from proxy.tools import Registry

K8S = Path(__file__).parents[2] / "deploy" / "kubernetes"
# From the first that has all we use switched on: native sidecars (1.29) and a sleep before the stop (1.30).
OLDEST = (1, 30)
VERSIONS = [
    version
    for version in sorted({major_minor(each) for each in all_versions()})
    if tuple(map(int, version.split("."))) >= OLDEST
]
VARIANTS = ("sidecar", "gateway")

Manifest = dict[str, Any]


@cache
def _all() -> dict[str, list[Manifest]]:
    files = sorted(K8S.glob("*/*.yaml"))
    found = {str(f.relative_to(K8S)): list(yaml.safe_load_all(f.read_text())) for f in files}
    return {name: manifests for name, manifests in found.items() if not name.startswith("tools/")}


def _one(folder: str, kind: str, name: str | None = None) -> Manifest:
    (found,) = [
        manifest
        for file, manifests in _all().items()
        for manifest in manifests
        if file.startswith(f"{folder}/") and manifest["kind"] == kind
        if name is None or manifest["metadata"]["name"] == name
    ]
    return found


@dataclass(frozen=True)
class Variant:
    """One way to run Callgate in a cluster: its Deployment, Callgate's container in it, and its settings."""

    name: str
    pod: Manifest
    labels: dict[str, str]
    callgate: Manifest
    settings: Settings

    def volume(self, path: str) -> tuple[Manifest, Manifest]:
        """The mount and the volume that hold ``path``."""
        mounts = [
            m for m in self.callgate["volumeMounts"] if PurePosixPath(path).is_relative_to(m["mountPath"])
        ]
        (mount,) = mounts
        return mount, next(v for v in self.pod["volumes"] if v["name"] == mount["name"])

    def port(self, port: str | int) -> int:
        """The number of a container port that is named or numbered ``port``."""
        declared: dict[str, int] = {p["name"]: p["containerPort"] for p in self.callgate["ports"]}
        return port if isinstance(port, int) else declared[port]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path: Path) -> Variant:
    template = _one(request.param, "Deployment")["spec"]["template"]
    pod = template["spec"]
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    callgate = next(c for c in containers if c["name"] == "callgate")
    (tmp_path / "callgate.yaml").write_text(_one(request.param, "ConfigMap")["data"]["callgate.yaml"])
    settings = load(tmp_path / "callgate.yaml", {})
    return Variant(request.param, pod, template["metadata"]["labels"], callgate, settings)


def _mount(files: dict[str, str], at: Path) -> None:
    """Lay files out as the kubelet does: in a dated folder, behind ``..data``, each behind a link."""
    dated = at / "..2026_01_31"
    dated.mkdir(parents=True)
    (at / "..data").symlink_to(dated.name)
    for name, text in files.items():
        (dated / name).write_text(text)
        (at / name).symlink_to(f"..data/{name}")


@pytest.mark.parametrize("folder", VARIANTS)
def test_callgate_accepts_what_the_pod_is_given(folder: str, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    config = _one(folder, "ConfigMap")["data"]["callgate.yaml"]
    config = config.replace("/etc/callgate", str(etc)).replace("/var/lib/callgate", str(tmp_path / "var"))
    _mount({"callgate.yaml": config}, etc / "config")
    for name in ("policies", "tools"):
        _mount(_one("common", "ConfigMap", f"callgate-{name}")["data"], etc / name)
    _mount({"keys.yaml": f"{'0' * 64}: {{id: agent, roles: [support]}}\n"}, etc / "keys")
    command = [sys.executable, "-m", "proxy", "check", "--config", str(etc / "config" / "callgate.yaml")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CALLGATE_")}
    environ["OPENAI_API_KEY"] = "sk-test"
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", _all())
def test_every_manifest_is_valid(file: str, version: str) -> None:
    for manifest in _all()[file]:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_misspelt_key_would_be_found() -> None:
    wrong = _one("gateway", "Service") | {"specs": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", ["policies", "tools"])
def test_config_maps_hold_the_files_beside_them(folder: str) -> None:
    files = {file.name: file.read_text() for file in (K8S / folder).iterdir()}
    assert files
    assert _one("common", "ConfigMap", f"callgate-{folder}")["data"] == files


def test_the_image_is_this_version(variant: Variant) -> None:
    assert variant.callgate["image"].rsplit(":", 1)[1] == __version__


def test_the_configuration_is_mounted_where_it_is_read(variant: Variant) -> None:
    assert variant.callgate["args"][:2] == ["serve", "--config"]
    path = PurePosixPath(variant.callgate["args"][2])
    mount, volume = variant.volume(str(path))
    assert mount["readOnly"] is True
    assert volume["configMap"]["name"] == "callgate-config"
    assert str(path.relative_to(mount["mountPath"])) in _one(variant.name, "ConfigMap")["data"]


@pytest.mark.parametrize("folder", ["policies", "tools"])
def test_policies_and_tools_are_mounted_where_they_are_looked_for(variant: Variant, folder: str) -> None:
    (path,) = getattr(variant.settings, folder).paths
    mount, volume = variant.volume(str(path))
    assert mount["readOnly"] is True
    assert mount["mountPath"] == str(path)
    assert volume["configMap"]["name"] == f"callgate-{folder}"


def test_the_audit_log_goes_to_the_one_writable_volume(variant: Variant) -> None:
    writable = [m["mountPath"] for m in variant.callgate["volumeMounts"] if not m.get("readOnly")]
    assert writable == ["/var/lib/callgate"]
    assert variant.settings.audit.sinks
    for sink in variant.settings.audit.sinks:
        assert PurePosixPath(str(sink.path)).is_relative_to("/var/lib/callgate")


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")],
)
def test_probes_ask_the_admin_port_and_reach_it(variant: Variant, probe: str, path: str) -> None:
    request = variant.callgate[probe]["httpGet"]
    assert request["path"] == path
    assert variant.port(request["port"]) == variant.settings.admin.port
    assert variant.settings.admin.host == "0.0.0.0", "the kubelet does not come over loopback"


def test_prometheus_is_led_to_the_admin_port(variant: Variant) -> None:
    annotations = _one(variant.name, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["prometheus.io/port"]) == variant.settings.admin.port
    assert annotations["prometheus.io/path"] == "/metrics"


def test_callgate_is_confined(variant: Variant) -> None:
    security = variant.pod["securityContext"] | variant.callgate["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 10001
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert variant.pod["automountServiceAccountToken"] is False
    assert variant.pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(variant.pod)


def test_the_pod_lives_longer_than_a_drain(variant: Variant) -> None:
    before = variant.callgate.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert variant.pod["terminationGracePeriodSeconds"] >= before + variant.settings.limits.drain_s + 5


def test_the_providers_key_comes_from_a_secret(variant: Variant) -> None:
    (upstream,) = variant.settings.upstreams
    name = upstream.model_dump()["auth"]["env"]
    (source,) = [e["valueFrom"]["secretKeyRef"] for e in variant.callgate["env"] if e["name"] == name]
    assert source == {"name": "callgate-provider", "key": name}


def test_the_sidecar_is_native_and_starts_first() -> None:
    pod = _one("sidecar", "Deployment")["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    assert sidecar["name"] == "callgate"
    assert sidecar["restartPolicy"] == "Always"
    assert "startupProbe" in sidecar, "without one, the application would not wait for it"


def test_the_application_is_led_to_its_sidecar_and_sees_no_secret(tmp_path: Path) -> None:
    pod = _one("sidecar", "Deployment")["spec"]["template"]["spec"]
    (app,) = pod["containers"]
    (tmp_path / "callgate.yaml").write_text(_one("sidecar", "ConfigMap")["data"]["callgate.yaml"])
    listen = load(tmp_path / "callgate.yaml", {}).listen
    environ = {e["name"]: e.get("value") for e in app["env"]}
    assert environ["OPENAI_BASE_URL"] == f"http://127.0.0.1:{listen.port}/v1"
    assert listen.host == "127.0.0.1"
    assert None not in environ.values(), "a value from a Secret"
    assert "envFrom" not in app
    assert "volumeMounts" not in app
    assert app["securityContext"]["runAsUser"] != 10001


def test_the_gateway_lets_only_applications_with_a_key_in(tmp_path: Path) -> None:
    (tmp_path / "callgate.yaml").write_text(_one("gateway", "ConfigMap")["data"]["callgate.yaml"])
    settings = load(tmp_path / "callgate.yaml", {})
    assert [source.kind for source in settings.identity] == ["api_keys"]


def test_the_service_and_the_budget_are_of_the_gateways_pods() -> None:
    deployment = _one("gateway", "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    service, budget = _one("gateway", "Service")["spec"], _one("gateway", "PodDisruptionBudget")["spec"]
    assert deployment["selector"]["matchLabels"] == service["selector"] == labels
    assert budget["selector"]["matchLabels"] == labels
    assert budget["minAvailable"] < deployment["replicas"]
    (port,) = service["ports"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert port["port"] == {p["name"]: p["containerPort"] for p in container["ports"]}[port["targetPort"]]


def _ports(rule: Manifest) -> set[tuple[str, int]]:
    return {(port["protocol"], port["port"]) for port in rule["ports"]}


def test_bound_applications_reach_the_gateway_and_dns_alone() -> None:
    policy = _one("gateway", "NetworkPolicy", "llm-egress-through-callgate")["spec"]
    gateway = _one("gateway", "NetworkPolicy", "callgate")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    to_gateway, to_dns = policy["egress"]
    (peer,) = to_gateway["to"]
    assert peer["podSelector"] == gateway["podSelector"]
    assert _ports(to_gateway) == {("TCP", 8787)}
    assert _ports(to_dns) == {("TCP", 53), ("UDP", 53)}
    (client,) = gateway["ingress"][0]["from"]
    assert client["podSelector"] == policy["podSelector"], "whom the one binds, the other must let in"


def test_network_policies_choose_the_pods_and_never_open_the_admin_port_to_all(variant: Variant) -> None:
    name = {"sidecar": "agent", "gateway": "callgate"}[variant.name]
    policy = _one(variant.name, "NetworkPolicy", name)["spec"]
    assert policy["podSelector"]["matchLabels"] == variant.labels
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    for rule in policy["ingress"]:
        assert rule.get("ports"), "a rule without ports opens them all"
        if ("TCP", variant.settings.admin.port) in _ports(rule):
            assert [peer["namespaceSelector"]["matchLabels"] for peer in rule["from"]]
    for rule in policy["egress"]:
        assert rule.get("to"), "a rule without peers opens the whole network"
        assert _ports(rule) <= {("TCP", 443), ("TCP", 53), ("UDP", 53)}


@pytest.mark.parametrize(
    ("tool", "roles", "effect"),
    [
        ("get_order", [], "allow"),
        ("refund_order", ["support"], "allow"),
        ("refund_order", [], "deny"),
        ("drop_table", ["support"], "deny"),
    ],
)
def test_the_example_policy_decides(tool: str, roles: list[str], effect: str) -> None:
    engine = regorus.Engine()
    for file in (K8S / "policies").glob("*.rego"):
        engine.add_policy_from_file(str(file))
    spec = Registry.load([K8S / "tools"]).get(tool)
    described = spec.as_policy_input() if spec else {"registered": False, "effect": "write"}
    engine.set_input({"tool": described, "principal": {"roles": roles}})
    assert engine.eval_rule("data.callgate.call.decision")["effect"] == effect
