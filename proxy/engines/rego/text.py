"""Where the rules of a policy stand in its text, and copies of the text with marks set into it.

A mark is a ``print`` at the end of a rule's body, or after one of its statements: it is reached exactly
where all before it held. Marks add no lines, so that places stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from proxy.engines.rego.references import parts_of, written
from proxy.model import dumps

Kind = Literal["value", "set", "function", "default"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One expression of a body."""

    line: int
    start: int
    end: int
    names: frozenset[str]
    """The variables that it mentions."""


@dataclass(frozen=True, slots=True)
class Body:
    """What has to hold for a rule; none of it where ``statements`` is empty."""

    line: int
    head: str
    """The rule's, or that of an ``else``, as it is written."""
    statements: tuple[Statement, ...]
    start: int
    """Of the braces, or of the one statement that has none around it."""
    otherwise: int | None
    """Where the value of an ``else`` ends; None in another body."""


@dataclass(frozen=True, slots=True)
class Index:
    """What stands in brackets behind a rule's name, as it is written, and the variables in it."""

    text: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class WrittenRule:
    """A rule as it is written in one place."""

    package: tuple[str, ...]
    name: tuple[str, ...]
    """As far as it is written out: of ``a.b[c]`` it is a, b."""
    indices: tuple[Index, ...]
    """What follows, as far as it is worked out."""
    kind: Kind
    file: str
    line: int
    key: str | None
    """What it adds to a set, as it is written."""
    bodies: tuple[Body, ...]

    @property
    def path(self) -> str:
        """Package and name."""
        return ".".join((*self.package, *self.name))

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


def written_rules(tree: Mapping[str, Any]) -> Iterator[WrittenRule]:
    """The rules of one module, in order, out of what ``Engine.get_ast_as_json`` says of it."""
    file, text = tree["source"]["file"], tree["source"]["contents"].encode()
    package = tuple(str(part) for part in parts_of(tree["ast"]["package"]["refr"]))
    for entry in tree["ast"]["rules"]:
        ((form, rule),) = entry.items()
        if form == "Default":
            kind, head, bodies = "default", rule, []
        else:
            ((shape, head),) = rule["head"].items()
            kind, bodies = {"Set": "set", "Func": "function"}.get(shape, "value"), rule["bodies"]
        parts = list(parts_of(head["refr"]))
        fixed = written(parts)
        yield WrittenRule(
            package=package,
            name=tuple(parts[:fixed]),
            indices=tuple(_index(text, part) for part in parts[fixed:]),
            kind=kind,  # type: ignore[arg-type]
            file=file,
            line=head["span"]["line"],
            key=_text(text, _span(head["key"])) if kind == "set" else None,
            bodies=tuple(_body(text, body, head) for body in bodies),
        )


def package_of(tree: Mapping[str, Any]) -> str:
    """The name of a module's package."""
    return ".".join(str(part) for part in parts_of(tree["ast"]["package"]["refr"]))


def _index(text: bytes, part: Any) -> Index:
    if isinstance(part, str):
        return Index(dumps(part).decode(), frozenset())
    return Index(_text(text, _span(part)), frozenset(_names(part)))


def _body(text: bytes, body: Mapping[str, Any], head: Mapping[str, Any]) -> Body:
    statements = tuple(
        Statement(
            statement["span"]["line"],
            _start(text, statement["span"]["start"]),
            _end(text, statement["span"]["end"]),
            frozenset(_names(statement)),
        )
        for statement in body["query"]["stmts"]
    )
    otherwise = _end(text, body["assign"]["span"]["end"]) if body["is_else"] and body["assign"] else None
    begin, start = body["span"]["start"], _start(text, body["query"]["span"]["start"])
    said = (
        text[begin : otherwise or begin + len("else")].decode()
        if body["is_else"]
        else _text(text, head["span"])
    )
    return Body(body["span"]["line"], said, statements, start, otherwise)


# The engine's spans leave the quotes of a text out.
def _start(text: bytes, at: int) -> int:
    return at - 1 if text[at - 1 : at] in (b'"', b"`") else at


def _end(text: bytes, at: int) -> int:
    return at + 1 if text[at : at + 1] in (b'"', b"`") else at


def _text(text: bytes, span: Mapping[str, int]) -> str:
    return text[_start(text, span["start"]) : _end(text, span["end"])].decode()


def _span(node: Mapping[str, Any]) -> Mapping[str, int]:
    ((_, inner),) = node.items()
    span: Mapping[str, int] = inner["span"]
    return span


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for kind, inner in node.items():
            if kind == "Var" and isinstance(inner, dict):
                yield inner["value"]
            else:
                yield from _names(inner)
    elif isinstance(node, list):
        for item in node:
            yield from _names(item)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to say once a body, or its first statements, held."""

    body: Body
    said: str
    """The arguments of a ``print``, as they are written in Rego."""
    after: int | None = None
    """The number of statements before it; None is all of them."""


def marked(text: str, marks: Sequence[Mark]) -> str:
    """The text with these marks in it."""
    content, done, at = text.encode(), bytearray(), 0
    for place, more in sorted((edit for mark in marks for edit in _edits(mark)), key=lambda edit: edit[0]):
        done += content[at:place] + more.encode()
        at = place
    return (bytes(done) + content[at:]).decode()


def _edits(mark: Mark) -> Iterator[tuple[int, str]]:
    body, said = mark.body, f"print({mark.said})"
    if not body.statements:
        if body.otherwise is not None:
            yield body.otherwise, f" if {{ {said} }}"
        return
    last = body.statements[-1 if mark.after is None else mark.after - 1].end
    if body.statements[0].start == body.start:
        yield body.start, "{ "
        yield last, f"; {said} }}"
    else:
        yield last, f"; {said}"


def marked_all(
    trees: Sequence[Mapping[str, Any]], marks: Callable[[WrittenRule], Sequence[Mark]]
) -> Iterator[tuple[str, str]]:
    """File and text of every module, each rule with the marks that it is given."""
    for tree in trees:
        found = [mark for rule in written_rules(tree) for mark in marks(rule)]
        yield tree["source"]["file"], marked(tree["source"]["contents"], found)
