"""Each deviation's frames, and that each is what its name says and nothing more."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from proxy.model import has_duplicate_keys, loads_frame
from proxy.scripted import Script, ScriptError, chat
from proxy.scripted.dialect import Shape
from proxy.scripted.script import Deviation, Played

CASES = yaml.safe_load((Path(__file__).parent / "deviations.yaml").read_text(encoding="utf-8"))
DOCUMENT = Path(__file__).parents[2] / "docs/scripted-provider.md"
ENVELOPE = ("object", "created", "model", "service_tier", "system_fingerprint")
STREAM = Shape("m", stream=True, obfuscation=False)
BODY = Shape("m", stream=False)

# Deviations of the event stream itself leave its data alone: event in, event out.
FRAMING = {
    "crlf": lambda event: [event.replace(b"\n", b"\r\n")],
    "cr": lambda event: [event.replace(b"\n", b"\r")],
    "no_space_after_data": lambda event: [event.replace(b"data: ", b"data:")],
    "multiline_data": lambda event: [event.replace(b"data: {", b"data: {\ndata: ")],
    "comments": lambda event: [b": processing\n\n", event],
    "no_done": lambda event: [] if b"[DONE]" in event else [event],
}


def played(turn: str, deviations: list[str], **members: Any) -> Played:
    return Played(Script.of("m", [CASES["turns"][turn] | {"deviations": deviations} | members]), 0)


def bare(payload: bytes) -> Any:
    """A chunk without what every chunk repeats."""
    chunk = loads_frame(payload)
    if "prompt_filter_results" in chunk:
        return chunk | {"prompt_filter_results": "..."}
    for choice in chunk.get("choices", ()):
        assert choice.pop("logprobs") is None
    assert chunk.pop("id").startswith("chatcmpl-")
    return {key: value for key, value in chunk.items() if key not in ENVELOPE}


def case_id(case: dict[str, Any]) -> str:
    return "+".join(case["deviations"]) or f"normal-{case['turn']}"


@pytest.mark.parametrize("case", CASES["cases"], ids=case_id)
def test_the_events_of_a_deviation(case):
    *events, done = chat.frames(played(case["turn"], case["deviations"]), STREAM)
    assert done == b"data: [DONE]\n\n"
    payloads = [event.removeprefix(b"data: ").removesuffix(b"\n\n") for event in events]
    assert [bare(payload) for payload in payloads] == [
        loads_frame(line.encode()) for line in case["events"].splitlines()
    ]
    assert not any(map(has_duplicate_keys, payloads))


@pytest.mark.parametrize("case", CASES["cases"], ids=case_id)
def test_the_body_of_a_deviation(case):
    normal = loads_frame(chat.body(played(case["turn"], []), BODY))
    body = loads_frame(chat.body(played(case["turn"], case["deviations"]), BODY))
    assert ("prompt_filter_results" in body) == ("azure_prompt_filter_first" in case["deviations"])
    body.pop("prompt_filter_results", None)
    if "body" not in case:
        assert body == normal
        return
    choice = body["choices"][0]
    assert choice["message"].pop("annotations") == []
    assert choice["message"] == loads_frame(case["body"].encode())
    assert choice["finish_reason"] == case["body_finish"]


@pytest.mark.parametrize("deviation", FRAMING)
@pytest.mark.parametrize("turn", ["one", "text"])
def test_the_framing_of_a_deviation(deviation, turn):
    normal = chat.frames(played(turn, []), STREAM)
    expected = [event for one in normal for event in FRAMING[deviation](one)]
    assert chat.frames(played(turn, [deviation]), STREAM) == expected


@pytest.mark.parametrize("deviation", get_args(Deviation))
def test_every_deviation_has_a_case_and_is_documented(deviation):
    alone = [case["deviations"] for case in CASES["cases"]]
    assert deviation in FRAMING or [deviation] in alone
    assert f"`{deviation}`" in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("deviation", get_args(Deviation))
@pytest.mark.parametrize("stream", [True, False])
def test_a_deviation_spares_what_it_does_not_concern(deviation, stream):
    """Custom calls, several choices, and no calls at all render under every deviation."""
    custom = {"kind": "custom", "name": "sql", "input": "drop it", "id": "c1"}
    turns = [
        {"choices": [{"text": "one"}, {"text": "another"}], "deviations": [deviation]},
        {"calls": [custom] * 2, "deviations": [deviation]},
    ]
    for number in range(2):
        part = Played(Script.of("m", turns), number)
        if deviation == "legacy_function_call" and number == 1:
            with pytest.raises(ScriptError, match="a legacy function_call can say one"):
                (chat.frames if stream else chat.body)(part, STREAM)
            continue
        written = b"".join(chat.frames(part, STREAM)) if stream else chat.body(part, BODY)
        assert (b"another", b"drop it")[number] in written.replace(b'"}}]},"logprobs', b"")


def test_deviations_change_one_choice_as_another():
    """With several choices, calls are told apart by their choice too."""
    calls = CASES["turns"]["two"]["calls"]
    turn = {"choices": [{"calls": calls}] * 2, "deviations": ["whole_call_one_delta"]}
    events = chat.frames(Played(Script.of("m", [turn]), 0), STREAM)[:-1]
    choices = [loads_frame(event.removeprefix(b"data: "))["choices"][0] for event in events]
    found = [(c["index"], call) for c in choices for call in c["delta"].get("tool_calls", ())]
    assert sorted((choice, call["index"], call["function"]["arguments"]) for choice, call in found) == [
        (0, 0, '{"t":1}'),
        (0, 1, '{"u":2}'),
        (1, 0, '{"t":1}'),
        (1, 1, '{"u":2}'),
    ]
