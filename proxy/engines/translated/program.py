"""All policies as one Python program: a function for each rule that a decision can come to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.engines.rego.names import Definition, Policies
from proxy.engines.rego.references import Path, parts_of
from proxy.engines.translated import expressions, statements
from proxy.engines.translated.frame import UNKNOWN, Frame, Never, Node, Untranslatable

_MAX_BYTES = 512 << 10
_FIRST_SLOT = 2  # behind the input and the steps that are left


@dataclass(frozen=True, slots=True)
class Translation:
    """A program in pieces, each small enough to be compiled between two requests."""

    constants: tuple[tuple[str, str], ...]
    """Names, and the Python that works out their values from ``DATA``."""
    functions: tuple[str, ...]
    decisions: Mapping[str, str]
    """By package, the function that decides."""
    slots: int
    """How long a state is."""
    inputs: str
    """The function that puts the members of the input into a state."""

    def written(self) -> dict[str, Any]:
        """It in JSON, as another process tells it."""
        return {
            "constants": self.constants,
            "functions": self.functions,
            "decisions": self.decisions,
            "slots": self.slots,
            "inputs": self.inputs,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Translation:
        """What ``written`` wrote."""
        constants = tuple((name, text) for name, text in told["constants"])
        return cls(constants, tuple(told["functions"]), told["decisions"], told["slots"], told["inputs"])


NOTHING = Translation((), (), {}, _FIRST_SLOT, "def inputs(S): pass")


def translate(
    asts: Sequence[Mapping[str, Any]], data: Mapping[str, Any], packages: frozenset[str]
) -> Translation:
    """The policies' decisions in Python; ``NOTHING`` where their syntax tree is not as expected."""
    try:
        program = _Program(Policies(asts, data))
        decisions = {package: program.rule((*package.split("."), "decision")) for package in sorted(packages)}
        functions = tuple(program.functions())
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return NOTHING
    if sum(map(len, functions)) > _MAX_BYTES:
        return NOTHING
    constants = tuple((name, text) for text, name in program.constants.items())
    return Translation(constants, functions, decisions, program.slots, program.inputs())


class _Program:
    """What was referred to so far; each rule and function is written once it is."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._names: dict[tuple[str, Path], str] = {}
        self._waiting: list[tuple[str, Path]] = []
        self.constants: dict[str, str] = {}
        self.slots = _FIRST_SLOT
        self._inputs: dict[str, dict[str | None, int]] = {}
        self._bodies = 0

    def _called(self, kind: str, path: Path) -> str:
        name = self._names.get((kind, path))
        if name is None:
            name = self._names[kind, path] = f"{kind}{len(self._names)}"
            self._waiting.append((kind, path))
        return name

    def rule(self, path: Path) -> str:
        """The function that works out a rule."""
        return self._called("rule", path)

    def input(self, path: Path) -> str:
        below = self._inputs.setdefault(path[0], {})
        member = path[1] if len(path) > 1 else None
        for name in (None, member):
            if name not in below:
                below[name], self.slots = self.slots, self.slots + 1
        return f"S[{below[member]}]"

    def inputs(self) -> str:
        """The text of the function that works out the members of the input which are referred to."""
        lines = ["def inputs(S):", " I = S[0]"]
        for name, below in self._inputs.items():
            lines.append(f" v = S[{below[None]}] = I.get({name!r}, UNDEFINED)")
            inner = [(member, slot) for member, slot in below.items() if member is not None]
            if inner:
                lines.append(" if type(v) is dict:")
                lines += [f"  S[{slot}] = v.get({member!r}, UNDEFINED)" for member, slot in inner]
                lines.append(" else:")
                lines += [f"  S[{slot}] = below(S, v, {member!r})" for member, slot in inner]
        return "\n".join(lines)

    def constant(self, text: str) -> str:
        return self.constants.setdefault(text, f"c{len(self.constants)}")

    def function(self, path: Path) -> tuple[str, int] | None:
        definitions = self._policies.functions.get(path)
        if not definitions:
            return None
        return self._called("function", path), len(definitions[0].args or ())

    def reference(self, path: Path) -> tuple[str, int, bool] | None:
        for length in range(1, len(path) + 1):
            if path[:length] in self._policies.rules:
                return f"{self.rule(path[:length])}(S)", length, False
        if self._policies.below(path):
            return f"{self._called('object', path)}(S)", len(path), False
        if not self._has_data(path):
            return None
        return self.constant(f"at(DATA, {path!r})"), len(path), True

    def functions(self) -> Iterator[str]:
        """The texts of all functions that are needed."""
        while self._waiting:
            kind, path = self._waiting.pop()
            name = self._names[kind, path]
            write = {"rule": self._rule, "function": self._function, "object": self._object}[kind]
            try:
                yield from write(name, path)
            except Untranslatable:
                yield f"def {name}(*given):\n {UNKNOWN}"

    # -- rules ----------------------------------------------------------------------------------

    def _rule(self, name: str, path: Path) -> Iterator[str]:
        definitions = self._policies.rules[path]
        if len(self._policies.below(path)) > 1:
            raise Untranslatable("a rule that others add members to")
        others = [each for each in definitions if not each.default]
        default = next((each for each in definitions if each.default), None)
        slot, self.slots = self.slots, self.slots + 1
        head = f"def {name}(S):\n v = S[{slot}]\n if v is not None: return v\n"
        end = f"\n S[{slot}] = v\n return v"
        if any(each.gathers for each in others):
            if default is not None:
                raise Untranslatable("a collection with a default")
            texts, lines = self._gathered(others)
        else:
            texts, lines = self._complete(others, default, "S", ())
        yield from texts
        # None is a value; in a state, no value has been worked out.
        yield head + "\n".join(lines) + "\n if v is None: raise Unknown" + end

    def _gathered(self, definitions: Sequence[Definition]) -> tuple[list[str], list[str]]:
        """A set or an object that several definitions make together."""
        keyed = {each.key is not None for each in definitions}
        if len(keyed) != 1 or not all(map(_is_flat, definitions)):
            raise Untranslatable("a rule of two kinds, or of collections in collections")
        texts, lines = [], [" v = Members()" if True in keyed else " v = {}"]
        for each in definitions:
            for body in each.bodies:
                if body.get("is_else"):
                    raise Untranslatable("else in a collection")
                called, text = self._body(each, body, _Gathering)
                if text is None:
                    continue
                texts.append(text)
                lines.append(f" {called}(S, v)")
        return texts, lines

    def _complete(
        self, definitions: Sequence[Definition], default: Definition | None, call: str, args: Path
    ) -> tuple[list[str], list[str]]:
        """A rule or a function with one value."""
        texts: list[str] = []
        lines = [" v = UNDEFINED"]
        alike = _one_value(definitions)
        for number, each in enumerate(definitions):
            into = "v" if number == 0 or alike else "w"
            for at, body in enumerate(each.bodies):
                if at and not body.get("is_else"):
                    raise Untranslatable("two bodies")
                called, text = self._body(each, body, _Returning, args)
                if text is None:
                    lines.append(f" {into} = UNDEFINED" if into == "w" and at == 0 else " pass")
                    continue
                texts.append(text)
                first = at == 0 and (number == 0 or not alike)
                lines.append(f" {'' if first else f'if {into} is UNDEFINED: '}{into} = {called}({call})")
            if into == "w":
                lines.append(" v = agreed(S, v, w)")
        if default is not None:
            called, text = self._body(default, default.bodies[0], _Returning, args)
            texts.append(text or "")
            lines.append(f" if v is UNDEFINED: v = {called}({call})")
        return texts, lines

    def _function(self, name: str, path: Path) -> Iterator[str]:
        definitions = self._policies.functions[path]
        others = [each for each in definitions if not each.default]
        default = next((each for each in definitions if each.default), None)
        arity = len(definitions[0].args or ())
        if any(len(each.args or ()) != arity for each in definitions):
            raise Untranslatable("a function of two arities")
        args = tuple(f"a{number}" for number in range(arity))
        call = ", ".join(("S", *args))
        texts, lines = self._complete(others, default, call, args)
        yield from texts
        spent = " S[1] -= 1\n if S[1] < 0: raise Unknown\n"
        yield f"def {name}({call}):\n{spent}" + "\n".join(lines) + "\n return v"

    def _object(self, name: str, path: Path) -> Iterator[str]:
        """A reference to what several rules with longer names make together."""
        below = self._policies.below(path)
        owned = any(len(path) > len(d.module.package) for rule in below for d in self._policies.rules[rule])
        if not owned or any(len(rule) != len(path) + 1 for rule in below) or self._has_data(path):
            raise Untranslatable("a package as a whole")
        lines = [" made = {}"]
        for rule in below:
            lines.append(f" v = {self.rule(rule)}(S)")
            lines.append(f" if v is not UNDEFINED: made[{rule[-1]!r}] = v")
        yield f"def {name}(S):\n" + "\n".join(lines) + "\n return made"

    def _has_data(self, path: Path) -> bool:
        found: Any = self._policies.data
        for part in path:
            if isinstance(found, list):
                raise Untranslatable("a place in a list, by name")
            if not isinstance(found, Mapping) or part not in found:
                return False
            found = found[part]
        return True

    # -- bodies ---------------------------------------------------------------------------------

    def _body(
        self, definition: Definition, body: Node, ending: type[_Ending], args: Path = ()
    ) -> tuple[str, str | None]:
        """One body as a function: its name and its text, None where it never holds."""
        self._bodies += 1
        name = f"body{self._bodies}"
        frame = Frame(self, definition.module, fail=ending.fails)
        end = ending(frame, definition, body)
        try:
            with frame.attempt():
                statements.must_be_once(definition.args or ())
            for pattern, arg in zip(definition.args or (), args, strict=True):
                with frame.attempt():
                    statements.match(frame, pattern, arg, new=True)
            statements.query(frame, body["query"]["stmts"])
            with frame.attempt():
                end.write()
        except Untranslatable:
            pass  # what could not be translated raises when it is come to
        except Never:
            if not frame.loops:
                return name, None
        text = "\n".join((f"def {name}({', '.join(('S', *end.params, *args))}):", *end.before, *frame.lines))
        return name, f"{text}\n {end.after}"


class _Ending(ABC):
    """What a body does where all of its statements hold."""

    fails = "return UNDEFINED"
    params: tuple[str, ...] = ()
    after = "return UNDEFINED"

    def __init__(self, frame: Frame, definition: Definition, body: Node) -> None:
        self._frame, self._definition, self._body = frame, definition, body
        self.before: list[str] = []

    @abstractmethod
    def write(self) -> None:
        """Write it; raises ``Untranslatable``."""


class _Returning(_Ending):
    """One value: the same in all turns of the body's loops, or the engine tells."""

    def write(self) -> None:
        frame = self._frame
        assign = self._body["assign"] or self._definition.assign
        text = "True" if assign is None else expressions.value(frame, assign["value"])
        always = assign is None or expressions.literal(frame.module, assign["value"]) is not None
        if not frame.loops or always:
            frame.line(f"return {text}")
            return
        self.before.append(" found = UNDEFINED")
        self.after = "return found"
        frame.line(f"found = agreed(S, found, {text})")


class _Gathering(_Ending):
    """A member of a set, or of an object."""

    fails = "return"
    params = ("gathered",)
    after = "return"

    def write(self) -> None:
        frame, definition = self._frame, self._definition
        if definition.key is not None:
            frame.line(f"add(S, gathered, {expressions.value(frame, definition.key)})")
            return
        assign = self._body["assign"] or definition.assign
        if assign is None:
            raise Untranslatable("a rule with a name in brackets and no value")
        key = expressions.value(frame, definition.indices[0])
        frame.line(f"put(S, gathered, {key}, {expressions.value(frame, assign['value'])})")


def _is_flat(definition: Definition) -> bool:
    """Whether what is in brackets, if anything, is all that stands behind a rule's name."""
    behind = list(parts_of(definition.ref))[len(definition.path) - len(definition.module.package) :]
    return len(behind) == (definition.key is None) == len(definition.indices)


def _one_value(definitions: Sequence[Definition]) -> bool:
    """Whether all definitions give the same value, so that the first that holds tells it."""
    values = set()
    for each in definitions:
        for body in each.bodies:
            assign = body["assign"] or each.assign
            values.add("True" if assign is None else expressions.literal(each.module, assign["value"]))
    return len(values) <= 1 and None not in values
