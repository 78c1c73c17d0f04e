"""Whose definitions of tools the model is shown."""

from __future__ import annotations

from proxy.config import Settings
from proxy.gates.definitions import DefinitionsGate
from proxy.ports import Sink


def definitions_gate(settings: Settings, sink: Sink) -> DefinitionsGate:
    """What compares definitions with their pins, puts the registry's in their place, and records them."""
    tools = settings.tools
    return DefinitionsGate(
        sink,
        override=tools.override,
        pin=tools.pin,
        record=tools.record,
        capture=settings.audit.capture,
    )
