"""Tools out of an OpenAPI document (3.0 and 3.1): one an operation.

Schemas become JSON Schema 2020-12, each whole by itself: references within the document are put in place,
those that lead back to themselves go to ``$defs``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from proxy.model import OfferedTool
from proxy.schemas.definitions import Definition, Json, Place, escaped
from proxy.tools import ToolEffect

EFFECTS: Mapping[str, ToolEffect] = {"get": "read", "head": "read", "delete": "destructive"}
"""What a method does, where the document does not say; the others write."""

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json\b", re.IGNORECASE)
_MAX_NODES = 20_000
_MAX_DEPTH = 60
# What OpenAPI adds to JSON Schema, and a model does not need.
_DROPPED = frozenset(
    {
        *("nullable", "discriminator", "xml", "externalDocs", "example", "readOnly", "writeOnly"),
        *("$id", "$schema", "$anchor", "$comment"),
    }
)
# Members of a schema that hold schemas: by name, in a list, alone.
_BY_NAME = ("properties", "patternProperties", "dependentSchemas", "$defs")
_LISTED = ("allOf", "anyOf", "oneOf", "prefixItems")
_ALONE = (
    *("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_PLACES = ("path", "query", "header", "cookie")
# Which header parameters are the client's business and not the model's (OpenAPI 3.1, 4.8.12.1).
_IGNORED_HEADERS = frozenset({"accept", "content-type", "authorization"})


class OpenApiFault(ValueError):
    """An operation cannot be made a tool; the message says why."""


class _TooMuch(Exception):
    """Put in place, the references of a schema make it too large."""


def operations(document: Json, place: Place) -> Iterator[Definition | OpenApiFault]:
    """A definition for every operation, or what is wrong with it."""
    version = str(document.get("openapi"))
    if not version.startswith("3."):
        yield OpenApiFault(f"{place.file}: OpenAPI {version} cannot be read (3.0 and 3.1 can)")
        return
    circular: dict[str, bool] = {}
    paths = document.get("paths")
    for path, item in (paths if isinstance(paths, dict) else {}).items():
        item = _deref(document, item) if isinstance(item, dict) else {}
        for method in _METHODS:
            if isinstance(operation := item.get(method), dict):
                pointer = f"/paths/{escaped(path)}/{method}"
                here = Place(place.file, pointer, place.lines)
                try:
                    parameters = _whole(document, item, operation, circular)
                    yield _definition(parameters, item, operation, (method, str(path)), here)
                except OpenApiFault as exc:
                    yield OpenApiFault(f"{place.at(pointer)}: {method.upper()} {path}: {exc}")


def _whole(document: Json, item: Json, operation: Json, circular: dict[str, bool]) -> Json:
    """The parameters with all references put in place, or referred to where that would be too much."""
    for inline in (True, False):
        try:
            return _parameters(_Schemas(document, inline, circular), item, operation)
        except (_TooMuch, RecursionError):
            continue
    raise OpenApiFault("its schema is too large, or nested too deeply")


def _definition(
    parameters: Json, item: Json, operation: Json, route: tuple[str, str], place: Place
) -> Definition:
    method, path = route
    said = [operation.get("summary") or item.get("summary"), operation.get("description")]
    texts = [" ".join(text.split()) for text in said if isinstance(text, str) and text.strip()]
    sentences = [text if text[-1] in ".!?:" else f"{text}." for text in dict.fromkeys(texts)]
    return Definition(
        OfferedTool(_name(operation, method, path), parameters, " ".join(sentences)),
        place,
        "openapi",
        EFFECTS.get(method, "write"),
        method.upper(),
        source=f"{method.upper()} {path}",
    )


def _name(operation: Json, method: str, path: str) -> str:
    given = operation.get("operationId")
    if isinstance(given, str) and given.strip():
        return given.strip()
    return "_".join([method, *re.findall(r"[A-Za-z0-9]+", path)])


def _parameters(schemas: _Schemas, item: Json, operation: Json) -> Json:
    """One object for all that the operation takes: parameters by name, the body's members or ``body``."""
    properties: Json = {}
    required: list[str] = []
    given = {
        (str(p.get("in")), str(p.get("name"))): p for p in schemas.listed(item) + schemas.listed(operation)
    }
    for (where, name), parameter in given.items():
        if not isinstance(parameter.get("name"), str) or where not in _PLACES:
            raise OpenApiFault("a parameter has no name, or is in no known place")
        if where == "header" and name.lower() in _IGNORED_HEADERS:
            continue
        name = name if name not in properties else f"{where}_{name}"
        properties[name] = schemas.parameter(parameter)
        if where == "path" or _is_true(parameter.get("required")):
            required.append(name)
    body, is_needed = schemas.body(operation)
    flat = _members(body)
    if body is not None and flat is not None and not flat.keys() & properties.keys():
        properties |= flat
        required += [name for name in body.get("required", ()) if is_needed]
    elif body is not None:
        properties["body"] = body
        required += ["body"] if is_needed else []
    return {
        "type": "object",
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
        **({"$defs": schemas.defs} if schemas.defs else {}),
    }


def _members(body: Json | None) -> Json | None:
    """The members of a body that is an object of these and nothing else; None for any other."""
    known = {"type", "properties", "required", "additionalProperties", "description", "title"}
    if body is None or not body.keys() <= known or body.get("additionalProperties", False) is not False:
        return None
    properties = body.get("properties")
    return properties if isinstance(properties, dict) else None


def _deref(document: Json, value: Json) -> Json:
    """What a reference leads to, over several if need be; raises ``OpenApiFault``."""
    for _ in range(16):
        if not isinstance(ref := value.get("$ref"), str):
            return value
        found = _target(document, ref)
        if not isinstance(found, dict):
            raise OpenApiFault(f"{ref} leads to no object")
        value = found
    raise OpenApiFault(f"{ref} leads in a circle")


def _target(document: Json, ref: str) -> Any:
    if not ref.startswith("#/"):
        raise OpenApiFault(f"{ref} leads out of the document: bundle it into one file first")
    value: Any = document
    for part in ref[2:].split("/"):
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            raise OpenApiFault(f"{ref} leads nowhere")
    return value


class _Schemas:
    """The schemas of one operation; ``defs`` has those that are referred to rather than put in place."""

    def __init__(self, document: Json, inline: bool, circular: dict[str, bool]) -> None:
        """``circular`` keeps what is found out of references, for all operations of the document."""
        self.defs: Json = {}
        self._document, self._inline, self._circular = document, inline, circular
        self._is_old = str(document.get("openapi")).startswith("3.0")
        self._nodes = 0
        self._names: dict[str, str] = {}

    def listed(self, holder: Json) -> list[Json]:
        """The parameters of an operation, or of all operations of a path."""
        given = holder.get("parameters")
        if not isinstance(given, list):
            return []
        return [_deref(self._document, one) for one in given if isinstance(one, dict)]

    def parameter(self, parameter: Json) -> Json:
        """A parameter's schema, with what is said of the parameter."""
        schema = parameter.get("schema")
        if schema is None and isinstance(content := parameter.get("content"), dict) and content:
            first = next(iter(content.values()))
            schema = first.get("schema") if isinstance(first, dict) else None
        read = self.schema(schema if isinstance(schema, dict) else {})
        return _described(read, parameter)

    def body(self, operation: Json) -> tuple[Json | None, bool]:
        """The schema of the body, and whether it is needed; raises ``OpenApiFault`` where it is no JSON."""
        given = operation.get("requestBody")
        if not isinstance(given, dict):
            return None, False
        body = _deref(self._document, given)
        content = body.get("content")
        if not isinstance(content, dict) or not content:
            return None, False
        media = next((content[kind] for kind in content if _JSON.match(str(kind))), None)
        if media is None:
            raise OpenApiFault(f"its body is {next(iter(content))}, not JSON")
        schema = media.get("schema") if isinstance(media, dict) else None
        read = self.schema(_deref(self._document, schema) if isinstance(schema, dict) else {})
        return _described(read, body), _is_true(body.get("required"))

    def schema(self, schema: Any, depth: int = 0) -> Any:
        """A schema as JSON Schema 2020-12, without references out of it."""
        self._nodes += 1
        if self._nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise _TooMuch
        if not isinstance(schema, dict):
            return schema
        if isinstance(ref := schema.get("$ref"), str):
            return self._referred(ref, schema, depth)
        return self._converted(schema, depth)

    def _referred(self, ref: str, schema: Json, depth: int) -> Json:
        beside = {key: value for key, value in schema.items() if key in ("description", "default", "title")}
        target = _target(self._document, ref)
        if self._inline and not self._is_circular(ref):
            read = self.schema(target, depth + 1)
            return {**read, **beside} if isinstance(read, dict) else {"allOf": [read], **beside}
        return {"$ref": f"#/$defs/{self._defined(ref, target)}", **beside}

    def _defined(self, ref: str, target: Any) -> str:
        if (name := self._names.get(ref)) is None:
            base = re.sub(r"[^A-Za-z0-9_.-]", "_", ref.rpartition("/")[2]) or "schema"
            name = base
            while name in self._names.values():
                name += "_"
            self._names[ref] = name
            self.defs[name] = {}
            self.defs[name] = self.schema(target)
        return name

    def _is_circular(self, ref: str) -> bool:
        """Whether what it refers to refers to it again."""
        if ref not in self._circular:
            self._circular[ref] = self._leads_back(ref)
        return self._circular[ref]

    def _leads_back(self, ref: str) -> bool:
        seen: set[str] = set()
        rest = [ref]
        while rest:
            for found in _refs(_target(self._document, rest.pop()), 0):
                if found == ref:
                    return True
                if found not in seen:
                    seen.add(found)
                    rest.append(found)
        return False

    def _converted(self, schema: Json, depth: int) -> Json:
        out: Json = {}
        for key, value in schema.items():
            if key in _DROPPED or key.startswith("x-"):
                continue
            if key in _BY_NAME and isinstance(value, dict):
                out[key] = {
                    name: self.schema(one, depth + 1)
                    for name, one in value.items()
                    if not self._is_answer(one)
                }
            elif key in _LISTED and isinstance(value, list):
                out[key] = [self.schema(one, depth + 1) for one in value]
            elif key in _ALONE:
                out[key] = self.schema(value, depth + 1)
            else:
                out[key] = value
        if isinstance(schema.get("required"), list) and isinstance(out.get("properties"), dict):
            gone = schema["properties"].keys() - out["properties"].keys()
            out["required"] = [name for name in schema["required"] if name not in gone]
        if self._is_old:
            _modernise(out, schema)
        if "example" in schema and "examples" not in out:
            out["examples"] = [schema["example"]]
        return out

    def _is_answer(self, schema: Any) -> bool:
        """Whether a property only comes back, and is never sent."""
        return isinstance(schema, dict) and _is_true(schema.get("readOnly"))


def _refs(value: Any, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH * 2:
        raise _TooMuch
    if isinstance(value, dict):
        if isinstance(ref := value.get("$ref"), str):
            yield ref
        for below in value.values():
            yield from _refs(below, depth + 1)
    elif isinstance(value, list):
        for below in value:
            yield from _refs(below, depth + 1)


def _is_true(said: Any) -> bool:
    """Whether a document says so, be it in the words of YAML 1.1, which many are written in."""
    return said is True or (isinstance(said, str) and said.lower() in ("yes", "on"))


def _modernise(out: Json, schema: Json) -> None:
    """What OpenAPI 3.0 says in its own way, as JSON Schema 2020-12 says it."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(is_exclusive := out.pop(exclusive, None), bool):
            if is_exclusive and bound in out:
                out[exclusive] = out.pop(bound)
        elif is_exclusive is not None:
            out[exclusive] = is_exclusive
    if _is_true(schema.get("nullable")):
        if isinstance(kind := out.get("type"), str):
            out["type"] = [kind, "null"]
        if isinstance(values := out.get("enum"), list) and None not in values:
            out["enum"] = [*values, None]


def _described(schema: Any, holder: Json) -> Json:
    """The schema with the description of what holds it, where it has none of its own."""
    read: Json = schema if isinstance(schema, dict) else {"allOf": [schema]}
    text = holder.get("description")
    if isinstance(text, str) and text.strip() and not read.get("description"):
        read = {**read, "description": " ".join(text.split())}
    return read
