"""What turns on tools of the provider's own, whichever API it speaks: members of the request, odd entries."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from proxy.model import HostedTool

SWITCHES: Mapping[str, str] = {
    "web_search_options": "web_search",
    "web_search": "web_search",  # Baidu
    "search_parameters": "web_search",  # xAI
    "search_settings": "web_search",  # Groq
    "enable_search": "web_search",  # DashScope
    "search_options": "web_search",  # DashScope
    "venice_parameters": "web_search",  # Venice
    "enable_code_interpreter": "code_interpreter",  # DashScope
    "plugins": "plugins",  # OpenRouter
    "connectors": "connectors",  # Cohere
    "compound_custom": "compound",  # Groq
    "data_sources": "data_sources",  # Azure
    "dataSources": "data_sources",  # Azure, in its older versions
    "mcp_servers": "mcp",
}
"""Members of a request that turn on what the provider does by itself, and how policies name it."""

_DATE = re.compile(r"_(\d{8}|\d{4}_\d{2}_\d{2})$")


def switched_on(body: Mapping[str, Any], but: Collection[str] = ()) -> list[HostedTool]:
    """The hosted tools that members of the request turn on, but those that the API lists by themselves.

    The label of each is the member, which is what has to go where the tool may not stay.
    """
    if SWITCHES.keys().isdisjoint(body):
        return []
    on = ((key, type) for key, type in SWITCHES.items() if body.get(key) not in (None, False))
    return [HostedTool(type, key) for key, type in on if key not in but]


def switches(hosted: Collection[HostedTool]) -> set[str]:
    """The members of the request that these hosted tools are."""
    return {tool.label for tool in hosted if SWITCHES.get(tool.label) == tool.type}


def kind_of(entry: Mapping[str, Any]) -> str:
    """The type of an entry of ``tools``, without the date of its version.

    One without a type is the application's own where it has a name. Otherwise it is what its only word says:
    some servers take ``{"googleSearch": {}}``.
    """
    if (kind := entry.get("type")) == "function":
        return "function"
    if "type" in entry:
        kind = str(kind)
        return _DATE.sub("", kind) if kind[-1:].isdigit() else kind
    return "function" if not entry or {"name", "function"} & entry.keys() else str(next(iter(entry)))
