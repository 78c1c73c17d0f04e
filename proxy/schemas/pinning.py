"""Pins: which of an application's own definitions of a registered tool are known."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy import strict_yaml
from proxy.schemas import yamls
from proxy.schemas.definitions import Definition
from proxy.tools import Registry, ToolSpec

_PIN = re.compile(r"(?m)^pin[ \t]*:.*\n?(?:[ \t]+.*\n?|-.*\n?)*")


@dataclass(frozen=True)
class Pinning:
    """One tool's pins, and what to make of them."""

    spec: ToolSpec
    path: Path
    definitions: tuple[Definition, ...]
    """As they were read, one for each digest."""

    @property
    def digests(self) -> tuple[str, ...]:
        return tuple(one.digest for one in self.definitions if one.digest is not None)

    @property
    def unknown(self) -> tuple[Definition, ...]:
        """The definitions that are not pinned yet."""
        return tuple(one for one in self.definitions if one.digest not in self.spec.pin)

    @property
    def is_first(self) -> bool:
        return not self.spec.pin

    def difference(self) -> str:
        """What the new definitions say otherwise than the registry, for whoever decides on them."""
        ours = _said(self.spec.description, self.spec.parameters)
        shown = []
        for one in self.unknown:
            theirs = _said(one.tool.description, one.tool.parameters)
            title = f"{one.place.at('')} ({one.digest}) {one.source}"
            lines = difflib.unified_diff(ours, theirs, str(self.path), title, lineterm="")
            more = yamls.dump({"more": one.tool.more}).splitlines() if one.tool.more else []
            shown += [*lines, *(f"+{line}" for line in more)]
        return "\n".join(shown)

    def text(self, add: bool) -> str:
        """The tool's file with the new pins, and all else, comments too, as it was; raises ``ValueError``.

        ``add`` keeps those that there are.
        """
        pins = list(dict.fromkeys((*(self.spec.pin if add else ()), *self.digests)))
        text = self.path.read_text(encoding="utf-8")
        changed = f"{_PIN.sub('', text).rstrip()}\n{yamls.dump({'pin': pins[0] if len(pins) == 1 else pins})}"
        try:
            reads = ToolSpec.model_validate(strict_yaml.load(changed))
        except ValueError:
            reads = None
        if reads != self.spec.model_copy(update={"pin": tuple(pins)}):
            raise ValueError(f"{self.path}: cannot be changed by itself: write pin: {pins} into it by hand")
        return changed


def pinnings(
    definitions: Iterable[Definition], registry: Registry, chosen: Sequence[str] = ()
) -> list[Pinning]:
    """For every registered tool that is defined here, what it would be pinned to, in the registry's order.

    ``chosen`` are digests, or how they begin: only these count; none means all.
    """
    found: dict[str, dict[str, Definition]] = {}
    wanted = tuple(digest if digest.startswith("sha256:") else f"sha256:{digest}" for digest in chosen)
    for one in definitions:
        if one.digest is None or (wanted and not one.digest.startswith(wanted)):
            continue
        if registry.get(one.name) is not None:
            found.setdefault(one.name, {})[one.digest] = one
    return [_pinning(registry, name, found[name]) for name in registry.specs if name in found]


def _pinning(registry: Registry, name: str, definitions: Mapping[str, Definition]) -> Pinning:
    return Pinning(registry.specs[name], registry.origins[name], tuple(definitions.values()))


def _said(description: str, parameters: object) -> Sequence[str]:
    return yamls.dump({"description": description, "parameters": parameters}).splitlines()
