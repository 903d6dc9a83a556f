"""The OpenAPI document, and whether an answer is one that it tells of."""

import functools
import json
import re

import yaml
from openapi_schema_validator import OAS30Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
PREFIXES = ("/api/v4", "/client/v4")
# What HTTP has, whatever the operation.
PLAIN_HEADERS = {"content-type", "content-length", "connection", "date", "transfer-encoding", "cache-control", "vary", "x-content-type-options"}


class Document:
    """A document whose references are followed."""

    def __init__(self, document: dict):
        self.absolute = absolute = _absolute(document)
        self.registry = Registry().with_resource("urn:document", Resource(contents=absolute, specification=DRAFT4))
        patterns = [(re.sub(r"\\{[^}]*\\}", "[^/]*", re.escape(path)), path) for path in absolute["paths"]]
        # `/custom_csrs/quota` before `/custom_csrs/{custom_csr_id}`.
        self.paths = [(re.compile(pattern), absolute["paths"][path]) for pattern, path in sorted(patterns, key=lambda found: found[1].count("{"))]
        self.validators = {}

    def follow(self, value: dict) -> dict:
        """What a reference leads to."""
        return self.registry.resolver().lookup(value["$ref"]).contents if "$ref" in value else value

    def examples(self, content: dict) -> list:
        """The examples of a body, of which there is one at least."""
        return [self.follow(example)["value"] for example in content.get("examples", {}).values()] or [content["example"]]

    def operations(self):
        """Every operation, with its method and path."""
        for path, operations in self.absolute["paths"].items():
            for method, operation in operations.items():
                if method in METHODS:
                    yield method, path, operation

    def operation(self, method: str, path: str) -> dict | None:
        """The operation of a request; none if there is no such route or method."""
        path = path.split("?")[0]
        rest = next((path.removeprefix(prefix) for prefix in PREFIXES if path.startswith(f"{prefix}/")), None)
        found = next((operations for pattern, operations in self.paths if rest is not None and pattern.fullmatch(rest)), {})
        return found.get({"HEAD": "get"}.get(method, method.lower()))

    def faults(self, schema: dict, value: object) -> list[str]:
        """What a value has that its schema does not allow."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self.validators:
            self.validators[key] = OAS30Validator(_absolute(schema), registry=self.registry)
        return [f"{list(fault.path)}: {fault.message[:300]}" for fault in self.validators[key].iter_errors(value)]

    def check(self, method: str, path: str, status: int, headers, body: object) -> None:
        """Fails if the operation has no such status, header, content type or body."""
        if not path.startswith(PREFIXES):
            return
        if (operation := self.operation(method, path)) is None:
            assert status in (400, 401, 404, 405), (method, path, status)
            return
        where = (operation["operationId"], status)
        assert str(status) in operation["responses"], where
        response = self.follow(operation["responses"][str(status)])
        # What a file is made of has no errors.
        errors = body["errors"] if isinstance(body, dict) else []
        assert {error["code"] for error in errors} <= codes_of(response["description"]), where
        declared = {name.lower() for name in response.get("headers", {})} | PLAIN_HEADERS
        assert {name.lower() for name in headers} <= declared, (where, dict(headers))
        content_type = headers["Content-Type"].split(";")[0]
        assert content_type in response["content"], (where, content_type)
        assert self.faults(response["content"][content_type]["schema"], body) == [], where


def codes_of(description: str) -> set[int]:
    """The codes that the description of a response names, `1405 to 1417` among them."""
    ranges = re.findall(r"\b(\d{4})(?: to (\d{4}))?", description)
    return {code for first, last in ranges for code in range(int(first), int(last or first) + 1)}


def _absolute(value: object) -> object:
    """With references that say which document they are for."""
    match value:
        case dict():
            return {name: f"urn:document{part}" if name == "$ref" and str(part).startswith("#") else _absolute(part) for name, part in value.items()}
        case list():
            return [_absolute(part) for part in value]
        case _:
            return value


@functools.cache
def committed(path) -> Document:
    """The document in the repository."""
    return Document(yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
