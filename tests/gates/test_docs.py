"""The guide to gates says what they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import orjson
import yaml

from proxy.config import Settings
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.gates.results import MAX_POLICY_CHARS
from proxy.gates.shaping import shaped, shortened
from proxy.gates.tools import Word, read_decision
from proxy.tools import ToolSpec

GUIDE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
SETTINGS, TOOL, MODELS = (
    yaml.safe_load(block) for block in re.findall(r"```yaml\n(.+?)```", GUIDE, re.DOTALL)
)


async def test_the_decision_on_tools_is_one() -> None:
    (example,) = re.findall(r"```rego\n(.+?)```", GUIDE, re.DOTALL)
    engine = RegorusEngine(PolicySet.of({"tools.rego": example}))
    tools = [{"name": "drop", "effect": "destructive"}, {"name": "look", "effect": "read"}]
    asked = {"tools": tools, "hosted": [], "hosted_tools": []}
    decision = read_decision(await engine.decide("callgate.tools", asked))
    assert decision.hide == {"drop"}
    assert set(decision.hosted.values()) == set(get_args(Word))


async def test_so_is_the_one_that_knows_what_is_allowed() -> None:
    (hosted,) = re.findall(r"`(\{tool: .+?\})`", GUIDE)
    rule = f'package callgate.tools\n\nallowed := ["web_search"]\n\ndecision := {{"hosted": {hosted}}}\n'
    engine = RegorusEngine(PolicySet.of({"tools.rego": rule}))
    asked = {"tools": [], "hosted": ["web_search", "tomorrow"], "hosted_tools": []}
    decision = read_decision(await engine.decide("callgate.tools", asked))
    assert decision.hosted == {"tomorrow": "strip"}


def test_the_examples_load() -> None:
    assert Settings.model_validate(MODELS).routing[0].decide
    results = Settings.model_validate(SETTINGS).results
    assert results.redact == ("secrets",)
    spec = ToolSpec.model_validate(TOOL).results
    assert spec is not None
    assert spec.shape_errors is False


def test_what_it_says_of_the_defaults_is_so() -> None:
    results = Settings().results
    assert (results.max_bytes, results.shape_errors) == (SETTINGS["results"]["max_bytes"], True)
    assert not results.redact
    assert not results.patterns
    assert f"first {MAX_POLICY_CHARS} characters" in GUIDE


def test_the_error_is_the_one_that_is_written() -> None:
    trace = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'u-7'"
    (shown,) = re.findall(r'`(\{"error".+?\})`', GUIDE)
    assert orjson.loads(shown) == orjson.loads(shaped(trace) or "")


def test_the_mark_of_a_cut_is_the_one_that_is_written() -> None:
    mark = re.search(r"`\[\.\.\. \d+ (.+?)\]`", GUIDE)
    assert mark is not None
    assert mark[1] in shortened("x" * 1000, 256)
