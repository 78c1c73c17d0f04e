"""Which model answers, and what it is told beside what the application tells it: as the operator says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from proxy.guards.base import Situation
from proxy.model import Request


@dataclass(frozen=True, slots=True)
class Route:
    """Other models for requests that offer tools and ask for a model that one of the globs matches."""

    models: tuple[str, ...]
    decide: str | None
    """The model that decides which tools to call; None leaves it as it is."""
    answer: str | None
    """The model that goes on with the tools' results; None leaves it as it is."""


class RoutingGate:
    """Sends a request to the model that suits its turn; the first route that matches counts."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request for the route's model. One that offers no tools keeps its own."""
        route = next((route for route in self._routes if _any(route.models, request.model)), None)
        if route is None or not request.tools:
            return request
        model = route.answer if request.history.fresh else route.decide
        if model is None or model == request.model:
            return request
        situation.admission["model"] = [model]
        routed: Request = request.reader.with_model(request, model)
        return routed


@dataclass(frozen=True, slots=True)
class Guidance:
    """An instruction for requests that offer one of these tools to one of these models."""

    text: str
    tools: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)


class GuidanceGate:
    """Adds instructions after the application's own.

    Each time the same ones in the same order, so that what providers cache of a prompt still holds.
    """

    def __init__(self, guidance: Sequence[Guidance]) -> None:
        self._guidance = tuple(guidance)

    async def admit(self, request: Request, situation: Situation) -> Request:
        """The request with the instructions that are for it."""
        texts = [
            one.text
            for one in self._guidance
            if _any(one.models, request.model) and any(_any(one.tools, name) for name in request.tools)
        ]
        if not texts:
            return request
        guided: Request = request.reader.with_guidance(request, "\n\n".join(texts))
        return guided


def _any(globs: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
