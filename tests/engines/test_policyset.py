"""Policies and data as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engines.sources.policyset import PolicyFault, PolicySet

REGO = "package a\n\nx := 1\n"


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def data_of(policy_set: PolicySet) -> Any:
    return orjson.loads(policy_set.data_json)


def faults_of(*roots: Path, **caps: int) -> list[str]:
    with pytest.raises(PolicyFault) as caught:
        PolicySet.load(roots, **caps)
    return list(caught.value.faults)


def test_modules_and_data_are_found_at_every_depth(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "b.rego": REGO,
            "sub/a.rego": REGO,
            "data.yaml": "top: {x: 1}",
            "sub/data.json": '{"y": 2}',
            "sub/deep/more.yml": "z: 3",
            "README.md": "no policy",
        },
    )
    found = PolicySet.load([tmp_path])
    assert [m.name for m in found.modules] == ["b.rego", "sub/a.rego"]
    assert found.modules[1].path == str(tmp_path / "sub" / "a.rego")
    assert data_of(found) == {"top": {"x": 1}, "sub": {"y": 2, "deep": {"z": 3}}}


def test_tests_are_read_only_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path, {"a.rego": REGO, "a_test.rego": REGO})
    assert [m.name for m in PolicySet.load([tmp_path]).modules] == ["a.rego"]
    assert [m.name for m in PolicySet.load([tmp_path], tests=True).modules] == ["a.rego", "a_test.rego"]


def test_files_may_be_named_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, {"x/a.rego": REGO, "x/data.json": '{"y": 2}'})
    found = PolicySet.load([tmp_path / "x" / "a.rego", tmp_path / "x" / "data.json"])
    assert [m.name for m in found.modules] == ["a.rego"]
    assert data_of(found) == {"y": 2}


def test_hidden_entries_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, {"..data/a.rego": REGO, ".git/b.json": "{", ".c.rego": "x", "d.rego": REGO})
    assert [m.name for m in PolicySet.load([tmp_path]).modules] == ["d.rego"]


def test_a_mounted_config_map_is_read_through_its_links(tmp_path: Path) -> None:
    write(tmp_path, {"..2026_01/a.rego": REGO, "..2026_01/sub/data.json": '{"x": 1}'})
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.rego").symlink_to("..data/a.rego")
    (tmp_path / "sub").symlink_to("..data/sub")
    found = PolicySet.load([tmp_path])
    assert [m.name for m in found.modules] == ["a.rego"]
    assert data_of(found) == {"sub": {"x": 1}}


def test_a_link_that_leads_back_is_a_fault(tmp_path: Path) -> None:
    write(tmp_path, {"sub/a.rego": REGO})
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (fault,) = faults_of(tmp_path)
    assert fault.startswith(f"{tmp_path / 'sub' / 'loop'}: a symbolic link that leads back")


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.json", '{"a": 1,\n"a": 2}', ": duplicate key 'a'"),
        ("a.json", '{"a": 1,\n\n}', ":3: not valid JSON"),
        ("a.json", "[1]", ": policy data is one mapping"),
        ("a.json", '{"a": NaN}', ": NaN is not JSON"),
        ("a.json", '{"a": "\\ud800"}', "not valid Unicode"),
        ("a.json", b'{"a": "\xff"}', ": not UTF-8 text"),
        ("a.json", '{"a": 123456789012345678901234567890}', "would lose digits"),
        ("a.json", '{"a": ' + "[" * 200 + "]" * 200 + "}", "nested more than 100 deep"),
        ("a.json", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ("a.yaml", "a: 1\na: 2", ":2: the key 'a' is given twice"),
        ("a.yaml", "a: [1\nb: 2", ":2: not valid YAML"),
        ("a.yaml", "a: 1\n1: 2", ":2: the key 1 is not text: write it in quotes"),
        ("a.yaml", "x: {on: 2}", ":1: the key True is not text"),
        ("a.yaml", "a: 1\nb: 2026-01-01", ":2: a timestamp has no form in JSON"),
        ("a.yaml", "a: !!set {b}", ":1: a set has no form in JSON"),
        ("a.yaml", "a: !!python/object:os.system x", ":1: not valid YAML"),
        ("a.yaml", "a: .inf", ": inf is not JSON"),
        ("a.yaml", "- a", ": policy data is one mapping"),
        ("a.yaml", "", ": policy data is one mapping"),
        ("a.yaml", "a: \x01", ": not valid YAML"),
        ("a.yaml", "a: " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ("a.yaml", "[" * 2_000_000, "nested too deeply"),
        ("a.yaml", "- " * 1_000_000, "nested too deeply"),
        ("a.yaml", "? " * 1_000_000, "nested too deeply"),
        ("a.rego", b"package \xff", ": not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(
    tmp_path: Path, name: str, content: str | bytes, fault: str
) -> None:
    write(tmp_path, {name: content})
    (found,) = faults_of(tmp_path)
    assert found.startswith(f"{tmp_path / name}:")
    assert fault in found


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": "{", "b.yaml": "[", "c.rego": b"\xff"})
    assert len(faults_of(tmp_path, tmp_path / "nowhere")) == 4


def test_a_value_that_two_files_define_names_both(tmp_path: Path) -> None:
    write(tmp_path, {"data.json": '{"sub": {"x": 1, "z": 1}}', "sub/data.json": '{"x": 2, "y": 3}'})
    fault = f"{tmp_path}/sub/data.json: data.sub.x is already defined in {tmp_path}/data.json"
    assert faults_of(tmp_path) == [fault]


def test_a_value_that_lies_below_another_names_both(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": '{"x": 1}', "b.json": '{"x": {"y": 2}}'})
    assert faults_of(tmp_path) == [f"{tmp_path}/b.json: data.x is already defined in {tmp_path}/a.json"]


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    write(tmp_path, {"a.yaml": "x: &a {p: 1}\ny: *a", "b.yaml": "x: {q: 2}"})
    assert data_of(PolicySet.load([tmp_path])) == {"x": {"p": 1, "q": 2}, "y": {"p": 1}}


@pytest.mark.parametrize(("name", "cap"), [("a.rego", "max_rego_bytes"), ("a.json", "max_data_bytes")])
def test_a_file_may_have_so_many_bytes(tmp_path: Path, name: str, cap: str) -> None:
    content = "{}" + " " * 98
    write(tmp_path, {name: content})
    PolicySet.load([tmp_path], **{cap: 100})
    assert faults_of(tmp_path, **{cap: 99}) == [
        f"{tmp_path / name}: larger than 99 bytes, the most that one such file may have"
    ]


def test_a_dangling_link_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "a.rego").symlink_to("nowhere")
    assert faults_of(tmp_path) == [f"{tmp_path / 'a.rego'}: No such file or directory"]


FILES = st.dictionaries(
    st.sampled_from(
        ["a.rego", "b.rego", "sub/a.rego", "data.json", "sub/data.json", "a_test.rego", "note.md"]
    ),
    st.sampled_from(["{}", '{"x": 1}', '{"x": 2}', ""]),
)


@given(first=FILES, second=FILES)
def test_a_revision_changes_if_and_only_if_the_contents_do(
    tmp_path_factory: pytest.TempPathFactory, first: dict[str, str], second: dict[str, str]
) -> None:
    def served(files: dict[str, str]) -> dict[str, str]:
        kept = {name: text for name, text in files.items() if not name.endswith(("_test.rego", ".md"))}
        return {name: text or "{}" if name.endswith(".json") else text for name, text in kept.items()}

    one, other = served(first), served(second)
    revisions = [
        PolicySet.load([write(tmp_path_factory.mktemp("policies"), {**files})]).revision
        for files in (one, other)
    ]
    assert (revisions[0] == revisions[1]) == (one == other)


def test_a_name_cannot_pass_for_contents() -> None:
    assert PolicySet.of({"a": "bc"}).revision != PolicySet.of({"ab": "c"}).revision
