"""Docker's specification of the Engine API (`swagger.yaml`), and whether an answer is as it says.

It comes from the Go module that Docker publishes it in, by Go's own means: nothing of it is in this project. One file for each
version of the API.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

MODULE = "github.com/moby/moby/api@v1.52.0"


@functools.cache
def _directory() -> Path:
    done = subprocess.run(["go", "mod", "download", "-json", MODULE], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, f"go mod download {MODULE}: {done.stdout}{done.stderr}"
    return Path(json.loads(done.stdout)["Dir"]) / "docs"


@functools.cache
def specification(version: str) -> Specification:
    """That of a version: "1.51"."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Specification(yaml.load((_directory() / f"v{version}.yaml").read_text(), loader))


class Specification:
    """One version of the API."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def operations(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Method, path and description of each."""
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                if method in ("get", "head", "post", "put", "delete"):
                    yield method.upper(), path, operation

    def operation(self, method: str, path: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._document["paths"][path][method.lower()]
        return found

    def definition(self, reference: str) -> dict[str, Any]:
        """What a `$ref` leads to."""
        found: dict[str, Any] = self._document["definitions"][reference.removeprefix("#/definitions/")]
        return found

    def schema(self, method: str, path: str, status: int) -> Mapping[str, Any] | None:
        """What the body of an answer is; None if there is none. A status that is not in the specification is an error."""
        answers = self.operation(method, path)["responses"]
        assert status in answers, f"{method} {path}: the specification has no status {status} but {list(answers)}"
        found: Mapping[str, Any] | None = answers[status].get("schema")
        return found

    def errors(self, schema: Mapping[str, Any], value: Any, where: str = "$") -> Iterator[str]:
        """Where a value is not as a schema says.

        Null is what Go writes of an array or an object that is not there, and its clients take it for an empty one.
        """
        if "$ref" in schema:
            yield from self.errors(self.definition(schema["$ref"]), value, where)
            return
        for part in schema.get("allOf", ()):
            yield from self.errors(part, value, where)
        kind = schema.get("type", "object" if "properties" in schema else "")
        if value is None and (isinstance(kind, list) or kind in ("array", "object") or schema.get("x-nullable")):
            return
        if not _fits(kind, value):
            yield f"{where}: {value!r} is no {kind}"
            return
        if "enum" in schema and value not in schema["enum"]:
            yield f"{where}: {value!r} is none of {schema['enum']}"
        if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
            yield f"{where}: {value!r} does not fit {schema['pattern']}"
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from self.errors(schema.get("items", {}), item, f"{where}[{i}]")
        elif isinstance(value, dict):
            yield from self._object_errors(schema, value, where)

    def _object_errors(self, schema: Mapping[str, Any], value: dict[str, Any], where: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield f"{where}.{name} is missing"
        for name, member in value.items():
            if name in properties:
                yield from self.errors(properties[name], member, f"{where}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from self.errors(schema["additionalProperties"], member, f"{where}.{name}")

    def unknown(self, schema: Mapping[str, Any], value: Any, where: str = "$") -> Iterator[str]:
        """Members of a value that a schema has no word for, where it names any."""
        if isinstance(value, list):
            items = self._whole(schema).get("items", {})
            for i, item in enumerate(value):
                yield from self.unknown(items, item, f"{where}[{i}]")
        elif isinstance(value, dict):
            whole = self._whole(schema)
            named, others = whole.get("properties", {}), whole.get("additionalProperties")
            for name, member in value.items():
                if name in named:
                    yield from self.unknown(named[name], member, f"{where}.{name}")
                elif isinstance(others, dict):
                    yield from self.unknown(others, member, f"{where}.{name}")
                elif named and not others:
                    yield f"{where}.{name}"

    def _whole(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """A schema with what it refers to, and with the parts that it is made of."""
        if "$ref" in schema:
            return self._whole(self.definition(schema["$ref"]))
        whole = dict(schema)
        for part in schema.get("allOf", ()):
            part = self._whole(part)
            whole["properties"] = {**part.get("properties", {}), **whole.get("properties", {})}
        return whole


def _fits(kind: str | list[str], value: Any) -> bool:
    if isinstance(kind, list):
        return any(_fits(one, value) for one in kind)
    if kind in ("", "file"):
        return True
    if kind in ("integer", "number"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    types: dict[str, type] = {"string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}
    return isinstance(value, types[kind])
