"""The tools' files: what is in them is what was meant, and what is wrong with them is said with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from proxy import strict_yaml
from proxy.config import Settings
from proxy.parts import registry
from proxy.schemas import sources, yamls
from proxy.tools import Registry, RegistryFault, ToolSpec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tool.yaml"


def loaded(file: Path, text: str) -> ToolSpec:
    file.write_text(text)
    (spec,) = Registry.load([file]).specs.values()
    return spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # The weaker one would win.
        ("name: t\neffect: destructive\neffect: read\n", ", line 3: effect: already on line 2 (keep one)"),
        (
            "name: t\nlimits:\n  per_day: 1\n  per_day: 9\n",
            ", line 4: per_day: already on line 3 (keep one)",
        ),
        ("name: t\nefect: read\n", ": efect: unknown key; did you mean 'effect'?"),
        ("name: t\nlimits: {per_hours: 1}\n", ": limits.per_hours: unknown key; did you mean 'per_hour'?"),
        ("name: t\ncache: {ttl_s: 1, zzz: 1}\n", ": cache.zzz: unknown key; known here: ttl_s, scope, tags"),
        ("name: t\nlabels: [a\neffect: read\n", ", line 3: not valid YAML: expected ',' or ']', but got ':'"),
        ("- name: t\n", ": a tool is one YAML mapping with at least a name"),
        (
            "name: t\noverride: maybe\n",
            ": override: Input should be a valid boolean, unable to interpret input",
        ),
        ("name: t\ncache: {ttl_s: !!float x}\n", ", line 2: not valid YAML: no value of the kind 'float'"),
        ("name: t\ndescription: \udcff\n", ": not UTF-8 text at byte 21 (save it as UTF-8)"),
    ],
)
def test_a_fault_has_its_place_and_is_one_line(file: Path, text: str, said: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RegistryFault) as refusal:
        Registry.load([file])
    assert refusal.value.faults == (f"{file}{said}",)
    if not text.startswith("- ") and "\udcff" not in text:
        assert sources.registry([file]).faults == [f"{file}{said}"], "the linter says the same"


def test_a_file_that_may_not_be_read_is_said_without_numbers(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("name: t\n")

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(RegistryFault) as refusal:
        Registry.load([file])
    assert refusal.value.faults == (f"{file}: Permission denied (name files that can be read)",)


def test_words_are_text_and_truths_are_still_understood(file: Path) -> None:
    spec = loaded(
        file,
        "name: t\nlabels: [on, no]\noverride: yes\nresults: {shape_errors: off}\n"
        "examples: [{day: 2026-01-02}]\nparameters: {properties: {mode: {enum: [on, off]}}}\n",
    )
    assert spec.labels == ("on", "no")
    assert (spec.override, spec.results and spec.results.shape_errors) == (True, False)
    assert spec.examples == ({"day": "2026-01-02"},)
    assert spec.parameters is not None
    assert spec.parameters["properties"]["mode"] == {"enum": ["on", "off"]}


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("{type: boolean, enum: [yes]}", "'yes' is text, and stands where a boolean is meant: write true or"),
        ("{anyOf: [{type: [boolean], const: Off}]}", "'Off' is text, and stands where a boolean is meant"),
        ("{type: array, uniqueItems: yes}", "the schema is not valid JSON Schema"),
        ("{type: object, additionalProperties: no}", "the schema is not valid JSON Schema"),
        ("{type: object, required: yes}", "the schema is not valid JSON Schema"),
    ],
)
def test_a_truth_of_yaml_1_1_where_json_schema_means_one_is_refused(
    file: Path, parameter: str, said: str
) -> None:
    file.write_text(f"name: t\nparameters: {{type: object, properties: {{a: {parameter}}}}}\n")
    with pytest.raises(RegistryFault) as refusal:
        registry(Settings.model_validate({"tools": {"paths": [file]}}))
    assert said in str(refusal.value)


def test_the_same_words_are_left_alone_where_text_is_meant(file: Path) -> None:
    same = "&a {type: object, properties: {b: *a}}"
    either = loaded(
        file, "name: t\nparameters: {properties: {a: {type: [string, boolean], enum: [yes, true]}}}\n"
    )
    assert either.parameters is not None
    assert either.parameters["properties"]["a"]["enum"] == ["yes", True]
    assert loaded(file, f"name: t\nparameters: {{type: object, properties: {{a: {same}}}}}\n").name == "t"


def test_what_is_written_reads_the_same_here_and_elsewhere() -> None:
    text = yamls.dump(["1.5e3", "on", "2026-01-02", 1500.0, 1e20, True])
    assert strict_yaml.load(text) == yaml.safe_load(text) == ["1.5e3", "on", "2026-01-02", 1500.0, 1e20, True]
