"""YAML as operators write it: plain values as YAML 1.2 reads them, and no key of a mapping twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$")
"""What is read as a number with a fraction."""


class YamlFault(ValueError):
    """What is wrong with a text, and its cure. Never quotes the text, which may hold a secret."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line

    def at(self, path: object) -> str:
        """The fault with its place in a file."""
        return f"{path}: {self}" if self.line is None else f"{path}, line {self.line}: {self}"


def read(text: bytes | str) -> tuple[Any, list[YamlFault]]:
    """The text's content, and the keys that a mapping names twice; raises ``YamlFault`` where it has none.

    YAML itself would keep the last of them in silence.
    """
    try:
        loader = _Loader(text.decode() if isinstance(text, bytes) else text)
        node = loader.get_single_node()
        if node is None:
            return None, []
        # First: constructing writes what is merged into the nodes, where it is no second writing.
        duplicates = list(_duplicates(node, set()))
        return loader.construct_document(node), duplicates
    except UnicodeDecodeError as exc:
        raise YamlFault(f"not UTF-8 text at byte {exc.start} (save it as UTF-8)") from None
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        cure = " (indent with spaces)" if "'\\t'" in (exc.problem or "") else ""
        raise YamlFault(f"not valid YAML: {exc.problem}{cure}", mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as exc:
        raise YamlFault(f"character {exc.position} is not allowed in YAML (remove it)") from None
    except RecursionError:
        raise YamlFault("nested too deeply (flatten it)") from None


def load(text: bytes | str) -> Any:
    """As ``read``, for what must name nothing twice."""
    content, duplicates = read(text)
    if duplicates:
        raise duplicates[0]
    return content


def _duplicates(node: yaml.Node, seen: set[int]) -> Iterator[YamlFault]:
    if id(node) in seen:
        return
    seen.add(id(node))
    children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    yield YamlFault(f"{key.value}: already on line {lines[key.value]} (keep one)", line)
                lines.setdefault(key.value, line)
            children.append(value)
    for child in children:
        yield from _duplicates(child, seen)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: ``yes``, ``off``, dates and ``1:30`` are text, as they were meant."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # `!!bool maybe`, or an integer of more digits than Python reads.
            what = node.tag.removeprefix("tag:yaml.org,2002:")
            raise yaml.constructor.ConstructorError(
                None, None, f"no value of the kind {what!r}", node.start_mark
            ) from None


def _read_as_1_2() -> None:
    kept = {f"tag:yaml.org,2002:{name}" for name in ("null", "merge")}
    _Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in kept]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    truth = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
    integer = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
    _Loader.add_implicit_resolver("tag:yaml.org,2002:bool", truth, list("tTfF"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:int", integer, list("-+0123456789"))
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


_read_as_1_2()
