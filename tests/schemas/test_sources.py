"""Definitions out of files: every shape gives the same ones, with the digests that a gate compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.gates.definitions import DefinitionsGate
from proxy.record import DefinitionRecord
from proxy.schemas.definitions import Definition, Place, read
from proxy.schemas.importing import guessed_effect, make
from proxy.schemas.sources import collect
from tests.core.protocols import PROTOCOLS
from tests.gates.conftest import Records, situation_of

Json = dict[str, Any]
FUNCTION: Json = {"name": "get_user", "description": "Finds a user.", "parameters": {"type": "object"}}
PIN = "sha256:9bdc78ade420d315117dc69b52750234bfd2fc244dd9f70717e440294b644332"
MESSAGES = {"name": "get_user", "description": "Finds a user.", "input_schema": {"type": "object"}}
ADDED = {"type": "tool_addition", "tool": {"definition": MESSAGES}}
MCP = {"name": "get_user", "description": "Finds a user.", "inputSchema": {"type": "object"}}


@pytest.mark.parametrize(
    ("document", "pin"),
    [
        ({"model": "m", "messages": [], "tools": [{"type": "function", "function": FUNCTION}]}, PIN),
        ({"model": "m", "messages": [], "functions": [FUNCTION]}, PIN),
        ({"model": "m", "input": "hi", "tools": [{"type": "function", **FUNCTION, "strict": True}]}, PIN),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "function", **FUNCTION}]}]}, PIN),
        ({"messages": [], "tools": [{**MESSAGES, "cache_control": {"type": "ephemeral"}}]}, PIN),
        ({"messages": [{"role": "user", "content": [ADDED]}]}, PIN),
        ([{"type": "function", "function": FUNCTION}], PIN),
        ([MESSAGES], PIN),
        ({"type": "function", "function": FUNCTION}, PIN),
        (FUNCTION, PIN),
        ({"tools": [MCP]}, None),
        ({"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP]}}, None),
    ],
)
def test_every_shape(document: Any, pin: str | None, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_bytes(orjson.dumps(document))
    found = collect([file])
    assert not found.faults
    assert not found.notes
    (one,) = found.definitions
    assert (one.tool.name, one.tool.description, one.tool.parameters) == tuple(FUNCTION.values())
    assert one.digest == pin


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"input_examples": [{"id": 1}]},
        {"strict": True},
        {"description": ["no", "text"]},
        {"parameters": None},
    ],
)
async def test_a_file_has_the_digest_that_the_gate_sees(protocol: str, more: Json) -> None:
    body = PROTOCOLS[protocol].request({"tools": [FUNCTION | more]}, False)
    (one,) = read(body, Place("request.json"))
    records = Records()
    request = PROTOCOLS[protocol].codec.read(orjson.dumps(body))
    await DefinitionsGate(records, record=True).admit(request, situation_of(request))
    (record,) = records.records
    assert isinstance(record, DefinitionRecord)
    assert record.digest == one.digest


def test_tools_of_a_namespace() -> None:
    tools = [
        {
            "type": "namespace",
            "name": "crm",
            "tools": [{"type": "function", **FUNCTION}, {"type": "web_search"}],
        }
    ]
    (one,) = read({"input": "hi", "tools": tools}, Place("request.json"))
    assert one.name == "crm.get_user"


def test_a_folder_of_requests_and_lines_of_requests(tmp_path: Path) -> None:
    lines = [
        {"messages": [], "tools": [{"type": "function", "function": {**FUNCTION, "name": name}}]}
        for name in "ab"
    ]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "day.jsonl").write_bytes(b"\n\n".join(map(orjson.dumps, lines)))
    (tmp_path / "one.json").write_bytes(orjson.dumps([FUNCTION]))
    (tmp_path / ".hidden.json").write_bytes(b"[")
    (tmp_path / "notes.txt").write_text("nothing")
    found = collect([tmp_path])
    assert [one.name for one in found.definitions] == ["get_user", "a", "b"]
    assert found.definitions[1].place.file.endswith("day.jsonl:1")
    assert found.definitions[2].place.file.endswith("day.jsonl:3")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b'{"a": 1, "a": 2}', "duplicate key"),
        ("a.json", b"\xff", "not UTF-8 text"),
        ("a.yaml", b"a: [", "not valid YAML"),
        ("a.yaml", b"name: t\neffect: reads\n", "effect"),
        ("a.yaml", b"name: t\ncolour: red\n", "colour"),
        ("gone.json", None, "No such file"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (fault,) = collect([tmp_path / name]).faults
    assert fault.startswith(str(tmp_path / name))
    assert said in fault


def test_what_defines_nothing_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"model": "m", "messages": [], "tools": [{"type": "web_search"}]}')
    assert collect([tmp_path]).notes == [f"{tmp_path / 'a.json'}: no tool is defined in it"]
    (tmp_path / "empty").mkdir()
    assert "no .json" in collect([tmp_path / "empty"]).faults[0]


@pytest.mark.parametrize(
    ("name", "effect"),
    [
        *(("get_user", "read"), ("getUser", "read"), ("list", "read"), ("crm.search_users", "read")),
        *(("is_open", "read"), ("delete_user", "destructive"), ("removeAll", "destructive")),
        *(("issue_refund", "write"), ("getaway", "write"), ("droplet_create", "write"), ("send", "write")),
    ],
)
def test_an_effect_is_guessed_from_the_first_word(name: str, effect: str) -> None:
    assert guessed_effect(name) == effect


def text_of(document: Any, **options: Any) -> str:
    (entry,), faults = make(list(read(document, Place("tools.json"))), **options)
    assert not faults
    return entry.text


def test_a_file_is_written_for_people() -> None:
    assert text_of([FUNCTION]) == (
        "name: get_user\n"
        "description: Finds a user.\n"
        "effect: read  # guessed from its name: check\n"
        "parameters:\n"
        "  type: object\n"
        f"pin: {PIN}\n"
    )


def test_an_effect_that_is_given_is_no_guess() -> None:
    assert "\neffect: destructive\n" in text_of([FUNCTION], effect="destructive")


def test_what_a_server_says_of_itself_is_a_guess() -> None:
    hinted = {**MCP, "name": "wipe", "annotations": {"readOnlyHint": True}}
    assert "effect: read  # guessed from its readOnlyHint: check\n" in text_of([hinted])


def test_of_several_definitions_the_last_counts_and_all_are_pinned() -> None:
    text = text_of(
        [
            FUNCTION,
            {**FUNCTION, "description": "Another."},
            FUNCTION,
            {**FUNCTION, "description": "The last."},
        ]
    )
    assert "# 3 definitions were seen" in text
    assert "description: The last." in text
    assert text.count("sha256:") == 3
    assert PIN in text


def test_hidden_characters_are_written_so_that_one_sees_them() -> None:
    assert "\\u200B" in text_of([{**FUNCTION, "description": "Finds\u200b a user."}])


def test_what_the_registry_would_not_load_is_said() -> None:
    _, (fault,) = make(list(read([{**FUNCTION, "parameters": {"type": "string"}}], Place("tools.json"))))
    assert fault.startswith("tools.json#/0: tool 'get_user': ")
    assert "type must be 'object'" in fault


def test_a_tool_that_takes_free_text_has_no_parameters() -> None:
    custom = {
        "type": "custom",
        "custom": {"name": "run", "description": "Runs it.", "format": {"type": "text"}},
    }
    assert "parameters" not in text_of([custom])


@pytest.mark.parametrize(
    "name", ["../../etc/cron", "a/b", ".hidden", "x" * 300, "naïve", "a b", "..", "con.", "-"]
)
def test_a_file_s_name_is_one_that_the_registry_reads(name: str) -> None:
    definitions = [
        *read([{**FUNCTION, "name": name}, {**FUNCTION, "name": name.upper()}], Place("tools.json"))
    ]
    entries, _ = make(definitions)
    names = [entry.file_name for entry in entries]
    assert len({file.lower() for file in names}) == len({one.name for one in definitions})
    assert all(len(file) < 120 and not file.startswith(".") and "/" not in file for file in names)
    assert all(isinstance(one, Definition) for one in definitions)


def test_an_openapi_document_is_read_as_yaml_1_2_and_understood_as_yaml_1_1(tmp_path: Path) -> None:
    file = tmp_path / "api.yaml"
    file.write_text(
        "openapi: 3.0.0\ninfo: {title: a, title: b}\npaths:\n  /a:\n    get:\n      operationId: a\n"
        "      parameters:\n"
        "      - {name: mode, in: query, required: yes, schema: {enum: [on, off], nullable: no}}\n"
        "      - {name: at, in: query, required: no, schema: {type: string, nullable: on}}\n"
    )
    found = collect([file])
    assert not found.faults
    (one,) = found.definitions
    assert one.tool.parameters is not None
    assert one.tool.parameters["properties"]["mode"]["enum"] == ["on", "off"]
    assert one.tool.parameters["properties"]["at"]["type"] == ["string", "null"]
    assert one.tool.parameters["required"] == ["mode"]
