"""The tools that the operator described."""

from __future__ import annotations

from proxy.config import Settings
from proxy.guards.schema import schema_fault
from proxy.tools import Registry, RegistryFault


def registry(settings: Settings) -> Registry:
    """The registry; raises ``RegistryFault`` naming every file that cannot be used."""
    read = Registry.load(settings.tools.paths)
    faults = [
        f"{read.origins.get(name, name)}: parameters: the schema {fault}"
        for name, spec in read.specs.items()
        if spec.parameters is not None and (fault := schema_fault(spec.parameters))
    ]
    if faults:
        raise RegistryFault(faults)
    return read
