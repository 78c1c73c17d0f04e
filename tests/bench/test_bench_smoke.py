"""The benchmark runs from end to end, says what its last line promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "performance.md"
COMMAND = [sys.executable, "-m", "bench", "--quick"]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark is Linux's")


def patterns(guide: str) -> list[str]:
    """The figures that the guide names, each as a regular expression; a name may leave its beginning open."""
    (section,) = re.findall(r"^## What is measured\n(.+?)^## ", guide, re.MULTILINE | re.DOTALL)
    named = [name for name in re.findall(r"`([a-z0-9_…]+)`", section) if "_" in name]
    return [f"…{name}".replace("…", ".+") if name[0] == "_" else name.replace("…", ".+") for name in named]


def ratios() -> list[str]:
    """The ratios of what the guide leaves open: each workload, and each protocol beside chat."""
    beside_chat = [
        f"{protocol}_{kind}" for protocol in ("responses", "messages") for kind in ("body", "stream")
    ]
    own = [f"{name}_cpu_ratio" for name in ("body", "stream", "burst", "cached_answer", "redis")]
    return [*own, "history_200_calls_cpu_ratio", *(f"{name}_cpu_ratio_to_chat" for name in beside_chat)]


@pytest.fixture(scope="module")
def _opa_is_there() -> None:
    """What the benchmark would else build by itself, which takes minutes on a new machine."""
    subprocess.run([ROOT / "scripts" / "opa"], capture_output=True, timeout=600, check=True)


def figures_of(*arguments: str, timeout_s: float) -> dict[str, Any]:
    """What a run of the benchmark comes to; one that takes too long ends its servers, too."""
    command = [*COMMAND, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            out, errors = run.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            run.terminate()
            raise
    assert run.returncode == 0, errors
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


@pytest.mark.usefixtures("_opa_is_there")
@pytest.mark.timeout(720)
def test_the_last_line_is_one_object_with_every_figure() -> None:
    figures = figures_of(timeout_s=110)
    wanted = patterns(GUIDE.read_text(encoding="utf-8"))
    assert len(wanted) > 15
    missing = [name for name in wanted if not any(re.fullmatch(name, figure) for figure in figures)]
    assert missing == []
    for name in ratios():
        assert 0 < figures[f"{name}_min"] <= figures[name] <= figures[f"{name}_max"], name
    for name in (
        "history_cost_per_byte_ratio",
        "policy_allow_us",
        "policy_unknown_value_us",
        "body_callgate_cpu_us",
        "body_passthrough_cpu_us",
        "policy_little_data_us",
        "policy_opa_us",
        "rss_bytes",
    ):
        assert figures[name] > 0, name
    assert isinstance(figures["rss_growth_bytes_per_request"], float)
    # Work costs: what is measured at next to nothing was not done.
    assert figures["body_callgate_cpu_us"] > 50
    assert figures["history_1024kb_cpu_us"] > figures["history_64kb_cpu_us"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.timeout(40)
def test_no_server_outlives_an_interrupted_run(number: signal.Signals) -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        try:
            children = _three_children(run)
            run.send_signal(number)
            assert run.wait(20) == 130
        finally:
            run.kill()
    assert [pid for pid in children if os.path.exists(f"/proc/{pid}")] == []


def _three_children(run: subprocess.Popen[bytes]) -> list[str]:
    """The servers' process ids, once all three are there."""
    file = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while len(children := file.read_text().split()) < 3:
        assert run.poll() is None, "the benchmark ended by itself"
        os.sched_yield()
    return children


@pytest.mark.timeout(120)
def test_policies_change_under_load() -> None:
    figures = figures_of("--reload", timeout_s=115)
    assert figures["reload_flips"] > 1
    assert figures["reload_requests"] >= figures["reload_resting_requests"] > 100
    assert figures["reload_flipping_slowest_ms"] >= figures["reload_flipping_p50_ms"] > 0
