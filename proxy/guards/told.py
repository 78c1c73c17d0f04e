"""What a policy was told of a call, as the record keeps it: enough to ask again, and nothing twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.model import ToolCall
from proxy.model.value import value
from proxy.record import Fact, masked

POLICY_FACT = "policy"
"""Under which a record's facts keep it."""
MAX_QUERY_CHARS = 8192


@value(frozen=True, slots=True)
class Told(Fact):
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

    def __call__(self) -> dict[str, Any]:
        """What the rest of the record does not say; what is empty is left out."""
        document, history = self.document, self.document["history"]
        told: dict[str, Any] = {"turn": document["conversation"]["turn"]}
        if calls := history["calls"]:
            told["calls"] = [[call["id"], call["name"], call["turn"]] for call in calls]
        if labels := history["labels"]:
            told["labels"] = labels
        if approval := document["approval"]:
            told["approval"] = approval
        if document["tool"]["registered"]:
            told["tool"] = document["tool"]
        if len(batch := document["batch"]) > 1:
            told["batch"] = [[call["id"], call["name"]] for call in batch]
            told |= self._place()
        if self.capture != "full":
            return {**told, "capture": self.capture}
        return told | self._content()

    def _place(self) -> dict[str, int]:
        at = next((at for at, call in enumerate(self.batch) if call is self.call), None)
        return {} if at is None else {"at": at}

    def _content(self) -> dict[str, Any]:
        """What people wrote, and what is said of them."""
        query, claims = self.document["conversation"]["query"], self.document["principal"]["claims"]
        content: dict[str, Any] = {"claims": claims} if claims else {}
        content["query"] = query[:MAX_QUERY_CHARS]
        if len(query) > MAX_QUERY_CHARS:
            content["query_chars"] = len(query)
        return content | self._repaired()

    def _repaired(self) -> dict[str, Any]:
        """The arguments, where a guard had repaired them before policy was asked."""
        judged = self.document["call"]["arguments"]
        if judged is None or _same(judged, self.call.arguments):
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
