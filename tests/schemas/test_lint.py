"""The lint: every finding by a tool that has it, how grades come of them, and that nothing breaks it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from proxy.model import OfferedTool
from proxy.schemas.definitions import Definition, Place, read
from proxy.schemas.lint import GRADES, Finding, Graded, Report, lint
from proxy.schemas.lint.findings import score
from proxy.schemas.sources import registry

Json = dict[str, Any]
ROOT = Path(__file__).parents[2]
CASES = yaml.safe_load((Path(__file__).parent / "lint.yaml").read_text(encoding="utf-8"))
BASE: Json = {
    "name": "find_invoice",
    "description": "READ-ONLY. Returns one invoice with its lines and total; it finds no drafts.",
    "effect": "read",
    "parameters": {
        "type": "object",
        "properties": {
            "number": {
                "type": "string",
                "maxLength": 20,
                "description": "As printed, such as INV-1.",
                "examples": ["INV-1"],
            }
        },
        "required": ["number"],
        "additionalProperties": False,
    },
    "examples": [{"number": "INV-1"}],
}


def without_nulls(value: Json) -> Json:
    return {key: one for key, one in value.items() if one is not None}


def tool_of(case: Json) -> Json:
    """The registry file that a case describes."""
    parameters: Json = without_nulls(BASE["parameters"] | case.get("schema", {}))
    parameters["properties"] = parameters["properties"] | case.get("properties", {})
    for number in range(case.get("many", 1) - 1):
        parameters["properties"][f"p{number}"] = {
            "type": "boolean",
            "description": f"Whether {number} is meant.",
        }
    nested: Json = {"type": "boolean", "description": "Whether it is so."}
    for _ in range(case.get("nested", 1) - 1):
        nested = {"type": "object", "description": "What lies below.", "properties": {"inner": nested},
                  "required": ["inner"], "additionalProperties": False}  # fmt: skip
    if "nested" in case:
        parameters["properties"]["outer"] = nested
    tool = without_nulls(BASE | {"parameters": parameters} | case.get("tool", {}))
    tool["description"] = tool["description"].replace("{long}", "Returns one invoice. " * 60)
    return tool


def numbered(number: int) -> Json:
    """One of many tools that are nothing like one another."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return BASE | {"name": f"t_{digest[:16]}", "description": f"READ-ONLY. Returns {' '.join(digest)}."}


def report_of(case: Json, folder: Path) -> tuple[Report, str, Path]:
    """What is found, what stands before the pointers in places, and the file."""
    if "tools" in case:
        return lint(list(read(case["tools"], Place("tools.json")))), "tools.json", folder
    if "count" in case:
        return lint([definition(numbered(number)) for number in range(case["count"])]), "tools.json", folder
    file = folder / "tool.yaml"
    file.write_text(yaml.safe_dump(tool_of(case), sort_keys=False, allow_unicode=True), encoding="utf-8")
    found = registry([file])
    assert not found.faults
    return lint(found.definitions), str(file), file


def definition(tool: Json) -> Definition:
    return Definition(
        OfferedTool(tool["name"], tool["parameters"], tool["description"]), Place("tools.json"), "chat"
    )


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: Json, tmp_path: Path) -> None:
    report, start, file = report_of(case, tmp_path)
    mine = [one for tool in report.tools for one in tool.findings]
    assert [one.code for one in report.together] == [want["code"] for want in case.get("together", [])]
    if "count" not in case and "together" not in case:
        assert sorted(one.code for one in mine) == sorted(want["code"] for want in case.get("finds", [])), (
            mine
        )
    for want, found in [(w, one) for w in case.get("finds", []) for one in mine if one.code == w["code"]]:
        check(want, found, start, file)
    for want, found in zip(case.get("together", []), report.together, strict=True):
        check(want, found, start, file)
    if "grade" in case:
        assert report.grade == case["grade"]


def check(want: Json, found: Finding, start: str, file: Path) -> None:
    assert found.message
    assert "severity" not in want or found.severity == want["severity"]
    if "fix" in want:
        read_back = orjson.loads if start == "tools.json" else yaml.safe_load
        assert read_back(found.fix) == want["fix"]
    if "place" in want and start == "tools.json":
        assert found.place == start + want["place"]
    elif "place" in want:
        name, _, line = found.place.rpartition(":")
        assert name == start
        last = want["place"].rpartition("/")[2]
        text = file.read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert last in text or text.lstrip().startswith("- "), f"line {line} is {text!r}"


def test_every_code_has_a_case_and_a_line_in_the_guide() -> None:
    guide = (ROOT / "docs" / "schemas.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([a-z-]+)` \| (?:error|warning|hint)", guide, re.MULTILINE))
    cased = {want["code"] for case in CASES for want in (*case.get("finds", []), *case.get("together", []))}
    source = "".join(path.read_text() for path in (ROOT / "proxy" / "schemas" / "lint").glob("*.py"))
    made = set(re.findall(r"(?:add|_said|Finding)\(\s*\"([a-z-]+)\"", source)) | {
        "invalid-schema",
        "unusable-schema",
    }
    assert cased == made
    assert documented == made


def test_the_tools_that_come_with_callgate_are_graded_a() -> None:
    found = registry([ROOT / "schemas" / "tools"])
    report = lint(found.definitions)
    assert not found.faults
    assert {tool.grade for tool in report.tools} == {"A"}
    assert not report.together
    assert report.passes("A")


def finding(code: str, severity: Any) -> Finding:
    return Finding(code, severity, "t", "t.yaml:1", "It is so.")


@pytest.mark.parametrize(
    ("findings", "grade"),
    [
        ([], "A"),
        ([("a", "hint")] * 4, "A"),
        ([("a", "warning")], "A"),
        ([("a", "warning"), ("b", "warning")], "B"),
        ([("a", "warning")] * 20, "C"),
        ([("missing-description", "warning")], "C"),
        ([("a", "error")], "D"),
        ([("a", "error"), ("b", "hint")], "F"),
        ([("invalid-schema", "error")], "F"),
    ],
)
def test_grades(findings: list[tuple[str, str]], grade: str) -> None:
    assert Graded("t", "t.yaml:1", tuple(finding(*one) for one in findings)).grade == grade


def test_a_report_passes_by_its_worst_tool() -> None:
    good, bad = Graded("a", "", ()), Graded("b", "", (finding("missing-description", "warning"),))
    report = Report((good, good, good, bad))
    assert report.grade == "A"
    assert [letter for letter in GRADES if report.passes(letter)] == ["C", "D", "F"]
    assert report.passes(None)
    assert not Report((good,), (finding("duplicate-name", "error"),)).passes(None)


def test_what_is_wrong_together_costs_all() -> None:
    report = Report((Graded("a", "", ()),), (finding("similar-name", "warning"),) * 2)
    assert report.score == 84 == score(report.together)


def test_the_report_is_json() -> None:
    report = lint([definition(tool_of({"properties": {"email": {"type": "string"}}}))])
    fields = orjson.loads(orjson.dumps(report.fields()))
    assert fields["tools"][0]["grade"] == report.tools[0].grade
    assert {one["code"] for one in fields["tools"][0]["findings"]} == {one.code for one in report.findings}


FIXED = [
    case
    for case in CASES
    if not {"tools", "count"} & case.keys() and any("fix" in want for want in case.get("finds", []))
]


@pytest.mark.parametrize("case", FIXED, ids=[case["name"] for case in FIXED])
def test_what_is_written_as_the_fix_ends_the_finding(case: Json, tmp_path: Path) -> None:
    tool = tool_of(case)
    properties = tool["parameters"]["properties"]
    for want in case["finds"]:
        for key, value in want.get("fix", {}).items():
            if key in properties:
                properties[key] |= value
            elif key in ("additionalProperties", "required"):
                tool["parameters"][key] = value
            else:
                tool[key] = value
    file = tmp_path / "tool.yaml"
    file.write_text(yaml.safe_dump(tool), encoding="utf-8")
    fixed = {want["code"] for want in case["finds"] if "fix" in want}
    assert not fixed & {one.code for one in lint(registry([file]).definitions).findings}
