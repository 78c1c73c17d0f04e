"""The situations that the demo shows: what is asked, by whom, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Seen:
    """What the application saw, and what was recorded."""

    texts: list[str] = field(default_factory=list)
    """What the assistant said, answer by answer."""
    ran: list[str] = field(default_factory=list)
    """The calls that the application ran, as ``name(arguments)``."""
    error: str = ""
    decisions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def verdicts(self) -> list[str]:
        return [f"{record['gen_ai.tool.name']}: {record['verdict']}" for record in self.decisions]


@dataclass(frozen=True)
class Situation:
    """One conversation of one application."""

    title: str
    model: str
    """Which script plays."""
    prompt: str
    tools: Sequence[str]
    promise: str
    """What a reader should see, in one sentence."""
    holds: Callable[[Seen], bool]
    role: str = "viewer"
    stream: bool = True
    replies: Sequence[str] = ()
    """What the user says next, once the assistant has spoken; ``{code}`` is the code of its question."""


def _ran(*calls: str) -> Callable[[Seen], bool]:
    return lambda seen: [call.partition("(")[0] for call in seen.ran] == list(calls) and not seen.error


SITUATIONS: tuple[Situation, ...] = (
    Situation(
        "An allowed call",
        "allowed",
        "How is user 42?",
        ("get_user",),
        "passes untouched; the text before it streams live",
        lambda seen: _ran("get_user")(seen) and seen.verdicts() == ["get_user: Allow"] and "Ada" in seen.text,
    ),
    Situation(
        "An invalid call, repaired",
        "repaired",
        "List Ada's orders.",
        ("search_orders",),
        "the model is told the limit is 50 and corrects itself; the application sees one good call",
        lambda seen: (
            _ran("search_orders")(seen)
            and '"limit":50}' in seen.ran[0].replace(" ", "")
            and seen.verdicts() == ["search_orders: Reask", "search_orders: Allow"]
        ),
    ),
    Situation(
        "An invented tool",
        "invented",
        "How is user 43?",
        ("get_user",),
        "the model is told which tool it meant",
        lambda seen: _ran("get_user")(seen) and seen.verdicts() == ["get_usr: Reask", "get_user: Allow"],
    ),
    Situation(
        "Hidden from one role",
        "by-role",
        "Deploy checkout 1.4.2 to staging.",
        ("get_user", "deploy_service"),
        "a viewer may not deploy: the model is not shown the tool, and a call of it is refused all the same",
        lambda seen: (
            _ran()(seen)
            and seen.verdicts() == ["deploy_service: Reask"]
            and "There is no tool" in seen.decisions[0]["reasons"][0]
        ),
        role="viewer",
    ),
    Situation(
        "Allowed for another",
        "by-role",
        "Deploy checkout 1.4.2 to staging.",
        ("get_user", "deploy_service"),
        "a developer may, in staging",
        lambda seen: _ran("deploy_service")(seen) and seen.verdicts() == ["deploy_service: Allow"],
        role="developer",
    ),
    Situation(
        "Denied in production",
        "production",
        "Deploy checkout 1.4.2 to production.",
        ("deploy_service",),
        "but not in production: the call never reaches the application",
        lambda seen: _ran()(seen) and seen.verdicts() == ["deploy_service: Deny"] and bool(seen.text),
        role="developer",
    ),
    Situation(
        "A mixed turn",
        "mixed",
        "How is checkout? Then deploy 1.4.2 to production.",
        ("get_service_status", "deploy_service"),
        "the allowed call runs; the refused one is answered, and the model sees its turn whole",
        lambda seen: (
            _ran("get_service_status")(seen)
            and seen.verdicts() == ["get_service_status: Allow", "deploy_service: Deny"]
            and "not allowed" in seen.text
        ),
        role="developer",
        stream=False,
    ),
    Situation(
        "A destructive call, confirmed",
        "confirmed",
        "Delete user 42.",
        ("delete_user",),
        "the user is shown exactly what will run, approves by code, and exactly that runs, once",
        lambda seen: (
            _ran("delete_user")(seen)
            and seen.verdicts() == ["delete_user: Confirm", "delete_user: Allow"]
            and "Confirmation needed before delete_user" in seen.text
        ),
        role="admin",
        replies=("approve {code}",),
    ),
    Situation(
        "A read, answered from cache",
        "cached",
        "Who is user 42?",
        ("get_user",),
        "the second time, what the application itself returned answers; it runs nothing",
        lambda seen: (
            _ran("get_user")(seen)
            and seen.verdicts() == ["get_user: Allow", "get_user: Answer"]
            and "Still Ada" in seen.text
        ),
        replies=("Check again, please.",),
    ),
    Situation(
        "A loop, broken",
        "in-circles",
        "Which orders of Ada's are open?",
        ("search_orders",),
        "the same call brings nothing new: first a hint to the model, then an answer with what there is",
        lambda seen: (
            len(seen.ran) < 5
            and seen.decisions[-1]["effect"] == "finish"
            and "one open order" in seen.text
            and not seen.error
        ),
    ),
    Situation(
        "A budget, kept",
        "budget",
        "Are search and billing up?",
        ("get_service_status",),
        "one call a minute is allowed here; the model is told when it may ask again",
        lambda seen: (
            _ran("get_service_status")(seen)
            and seen.verdicts() == ["get_service_status: Allow", "get_service_status: Deny"]
        ),
    ),
    Situation(
        "A provider that breaks off",
        "cut-off",
        "How is user 42?",
        ("get_user",),
        "no half call is released; the client sees an error",
        lambda seen: not seen.ran and "cut off" in seen.error and not seen.decisions,
    ),
)
