"""Azure's paths: the API below ``/openai``, where a deployment stands in the path instead of a model."""

from __future__ import annotations

import re

from proxy.model import Fault, dumps, loads

PREFIX = "/openai/"
# The only routes that Azure has below a deployment.
DEPLOYED = frozenset(
    {"/chat/completions", "/completions", "/embeddings", "/images/generations", "/images/edits"}
) | {"/audio/speech", "/audio/transcriptions", "/audio/translations"}
_PATH = re.compile(r"(/openai(?:/v1|/deployments/(?P<deployment>[^/?]+))?)(?P<route>/[^?]*)")


def route(path: str) -> str | None:
    """The route that one of Azure's paths names; None for any other path."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    rest = match["route"]
    if match["deployment"] is None:
        # Without its name after it, "deployments" is a route that nothing is known of.
        return None if rest.startswith("/deployments") else rest
    return rest if rest in DEPLOYED else None


def split(path: str) -> tuple[str, str]:
    """What stands before the route in a path, and the route: nothing with any other provider."""
    found = route(path)
    return ("", path) if found is None else (path.removesuffix(found), found)


def deployment(path: str) -> str | None:
    """The deployment that a path (with its query) names: Azure goes by it, and not by the body's model."""
    match = _PATH.match(path) if path.startswith(PREFIX) else None
    return match["deployment"] if match is not None else None


def with_model(raw: bytes, model: str) -> bytes:
    """The request's body with the model that its path names; as it is where it has no one reading."""
    try:
        body = loads(raw)
    except Fault:
        return raw
    if not isinstance(body, dict) or body.get("model") == model:
        return raw
    return dumps({**body, "model": model})
