"""What a policy was told of a call, as the record keeps it: enough to ask again, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.model import ToolCall
from proxy.record import masked

POLICY_FACT = "policy"
"""Under which a record's facts keep it."""
MAX_QUERY_CHARS = 8192


@dataclass(frozen=True, slots=True)
class Told:
    """The input of one decision, as the record of its call may hold it.

    Making one costs nothing: the sink's own thread picks out what is kept. Arguments stand once in the log,
    in the decision on their call, where policy says what of them is masked: other calls are only named here.
    """

    document: Mapping[str, Any]
    """The input of ``callgate.call``, whole."""
    call: ToolCall
    """As the model wrote it, and as the record has it."""
    batch: Sequence[ToolCall]
    capture: str
    mask: tuple[str, ...]

    def fields(self) -> dict[str, Any]:
        """What the rest of the record does not say; what is empty is left out."""
        document, history = self.document, self.document["history"]
        kept = {
            "turn": document["conversation"]["turn"],
            "calls": [[call["id"], call["name"], call["turn"]] for call in history["calls"]],
            "labels": history["labels"],
            "approval": document["approval"],
            "tool": document["tool"] if document["tool"]["registered"] else None,
        }
        if len(document["batch"]) > 1:
            kept["batch"] = [[call["id"], call["name"]] for call in document["batch"]]
            kept["at"] = next((at for at, call in enumerate(self.batch) if call is self.call), None)
        if self.capture == "full":
            kept |= self._content()
        else:
            kept["capture"] = self.capture
        found = {name: value for name, value in kept.items() if value not in (None, [], {})}
        return found | self._repaired()

    def _content(self) -> dict[str, Any]:
        """What people wrote, and what is said of them."""
        query = self.document["conversation"]["query"]
        content = {"claims": self.document["principal"]["claims"], "query": query[:MAX_QUERY_CHARS]}
        return content | ({"query_chars": len(query)} if len(query) > MAX_QUERY_CHARS else {})

    def _repaired(self) -> dict[str, Any]:
        """The arguments, where a guard had repaired them before policy was asked."""
        judged = self.document["call"]["arguments"]
        if self.capture != "full" or judged is None or _same(judged, self.call.arguments):
            return {}
        return {"arguments": masked(judged, self.mask)}


def _same(judged: Any, written: Any) -> bool:
    if judged is written:
        return True
    try:
        # Compared as text: Python holds 1, 1.0 and true for the same; a policy does not.
        return json.dumps(judged) == json.dumps(written)
    except RecursionError:
        return False
