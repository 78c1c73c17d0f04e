"""What is wrong with policies, in words for the operator."""

from __future__ import annotations

from collections.abc import Sequence


class PolicyFault(ValueError):
    """Policies or data cannot be served; ``faults`` names each with its file and, where known, its line."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class SignatureFault(ValueError):
    """The bundle is not what was signed, or nobody who was asked for signed it."""
