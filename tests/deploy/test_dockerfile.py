"""The image, as far as it can be checked without an engine: its text, its context, and what it installs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path
from threading import Thread
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from proxy import __version__

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class Instruction:
    """One instruction of the Dockerfile, its continuation lines joined."""

    stage: int
    word: str
    rest: str

    @property
    def exec_form(self) -> list[str]:
        """The JSON array that the instruction ends in; fails where it has the shell form."""
        found: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return found


def _instructions(text: str) -> list[Instruction]:
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = -1
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage, word, rest.strip()))
    return found


DOCKERFILE = _instructions((DEPLOY / "Dockerfile").read_text())
FINAL = [i for i in DOCKERFILE if i.stage == DOCKERFILE[-1].stage]


def _last(word: str) -> Instruction:
    return [i for i in FINAL if i.word == word][-1]


def test_there_is_a_build_stage_and_what_it_needs_stays_there() -> None:
    assert DOCKERFILE[-1].stage == 1
    assert [i.rest for i in FINAL if i.word == "COPY"] == ["--from=build /opt/callgate /opt/callgate"]
    assert not [i for i in FINAL if i.word == "RUN" and "pip" in i.rest]


def test_bases_are_named_by_version_and_are_the_same_in_both_stages() -> None:
    bases = {i.rest.split()[0] for i in DOCKERFILE if i.word == "FROM"}
    assert len(bases) == 1, "a venv needs the very interpreter it was made with"
    assert re.fullmatch(r"python:3\.\d+-slim-bookworm", bases.pop())


def test_nothing_comes_from_the_network_but_what_is_locked() -> None:
    assert not [i for i in DOCKERFILE if i.word == "ADD"]
    assert not [i for i in DOCKERFILE if re.search(r"\b(curl|wget|apt-get|git)\b", i.rest)]
    installs = [i.rest for i in DOCKERFILE if "install" in i.rest and "pip" in i.rest]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or ("--no-index" in install and "--no-deps" in install)


def test_it_runs_as_a_fixed_user_that_is_not_root() -> None:
    words = [i.word for i in FINAL]
    assert re.fullmatch(r"10001:10001", _last("USER").rest)
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "--uid 10001" in _last("RUN").rest


def test_it_starts_and_stops_without_a_shell() -> None:
    assert _last("ENTRYPOINT").exec_form == ["callgate"]
    assert _last("CMD").exec_form == ["serve", "--config", "/etc/callgate/callgate.yaml"]
    assert _last("STOPSIGNAL").rest == "SIGTERM"


def test_only_its_volume_needs_to_be_writable() -> None:
    assert _last("VOLUME").exec_form == ["/var/lib/callgate"]
    assert _last("WORKDIR").rest == "/var/lib/callgate"
    assert "PYTHONDONTWRITEBYTECODE=1" in _last("ENV").rest


def test_its_label_says_the_version_of_the_code() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in _last("LABEL").rest


def _copied() -> list[str]:
    sources: list[str] = []
    for instruction in DOCKERFILE:
        if instruction.word == "COPY" and "--from=" not in instruction.rest:
            sources.extend(instruction.rest.split()[:-1])
    return sources


def _in_context(path: str) -> bool:
    # The rules of .dockerignore as far as this file uses them: the last pattern that fits decides.
    kept = True
    for pattern in (ROOT / ".dockerignore").read_text().splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        wanted = pattern.removeprefix("!")
        inside = path == wanted or path.startswith(f"{wanted}/") or fnmatch(path, wanted)
        kept = pattern.startswith("!") if inside else kept
    return kept


@pytest.mark.parametrize("source", _copied())
def test_what_is_copied_is_there_and_in_the_build_context(source: str) -> None:
    assert (ROOT / source).exists()
    assert _in_context(source)


@pytest.mark.parametrize(
    "path", [".git", ".venv", "audit", ".env", "keys.yaml", "tests", "proxy/__pycache__"]
)
def test_what_the_image_has_no_use_for_stays_out_of_the_build_context(path: str) -> None:
    assert not _in_context(path)


def _stanzas(lock: Path) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9-]+==\S+)((?:.*\n    .*)*)", lock.read_text(), re.MULTILINE)
    return {requirement: hashes for requirement, hashes in found}


def _needed_by(distribution: str, found: set[str]) -> set[str]:
    """The names of ``distribution`` and of all that it needs here, itself included."""
    found.add(canonicalize_name(distribution))
    for text in metadata.requires(distribution) or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and canonicalize_name(requirement.name) not in found:
            _needed_by(requirement.name, found)
    return found


def test_the_wheel_is_built_with_what_the_development_lock_names() -> None:
    build, dev = _stanzas(DEPLOY / "requirements-build.lock"), _stanzas(ROOT / "requirements-dev.lock")
    assert {requirement.partition("==")[0] for requirement in build} == _needed_by("hatchling", set())
    assert all("--hash=sha256:" in hashes for hashes in build.values())
    assert build.items() <= dev.items(), "copy the changed stanzas from requirements-dev.lock"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the Dockerfile's own command."""
    command = next(i.exec_form for i in DOCKERFILE if "hatchling" in i.rest and "build" in i.rest.split('"'))
    target = tmp_path_factory.mktemp("dist")
    assert command[0] == "python"
    assert command[-1] == "/dist"
    subprocess.run([sys.executable, *command[1:-1], str(target)], cwd=ROOT, check=True, capture_output=True)
    (built,) = target.glob("callgate-*.whl")
    return built


def test_the_wheel_carries_the_embedded_defaults_and_its_types(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert wheel.name == f"callgate-{__version__}-py3-none-any.whl"
    assert "proxy/py.typed" in names
    assert [n for n in names if fnmatch(n, "proxy/_defaults/policies/*.rego")]
    assert [n for n in names if fnmatch(n, "proxy/_defaults/schemas/tools/*.yaml")]
    assert not [n for n in names if n.startswith(("tests/", "deploy/", "bench/"))]


def test_the_wheel_installs_alone_and_gives_the_command(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--target", str(tmp_path), str(wheel)], check=True)
    assert (tmp_path / "proxy" / "_defaults" / "policies").is_dir()
    assert "callgate = proxy.cli:main" in next(tmp_path.glob("*.dist-info/entry_points.txt")).read_text()


class _Admin(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_says_what_the_admin_port_says(status: int | None, healthy: bool) -> None:
    server = HTTPServer(("127.0.0.1", 0), type("Admin", (_Admin,), {"status": status}))
    environ = {**os.environ, "CALLGATE_ADMIN__PORT": str(server.server_port)}
    # A proxy for outgoing requests must not be asked for this one.
    environ["http_proxy"] = environ["HTTP_PROXY"] = "http://127.0.0.1:9"
    thread = Thread(target=server.handle_request)
    if status is None:
        server.server_close()
    else:
        thread.start()
    command = _last("HEALTHCHECK").exec_form
    done = subprocess.run(
        [sys.executable, *command[1:]], env=environ, check=False, capture_output=True, timeout=10
    )
    assert (done.returncode == 0) is healthy
    if status is not None:
        thread.join(timeout=5)
        server.server_close()
