"""The OpenAPI document, as other people's tools read it."""

import json
import re

import yaml
from document import METHODS, Document
from harness import ROOT
from openapi_spec_validator import OpenAPIV30SpecValidator, validate
from tools import npm_packages, output


def test_it_is_served_as_json_and_as_yaml_and_both_are_the_committed_one(service, document):
    response = service.client.get(f"{service.url}/openapi.json")
    assert response.headers["Content-Type"].split(";")[0] == "application/json"
    assert response.headers["X-Request-Id"] and response.json() == document
    response = service.client.get(f"{service.url}/openapi.yaml")
    assert response.status_code == 200
    assert "yaml" in response.headers["Content-Type"]
    assert response.text == (ROOT / "openapi.yaml").read_text()
    assert yaml.safe_load(response.text) == document


def test_it_is_valid_3_0_3(document):
    assert document["openapi"] == "3.0.3"
    validate(document, cls=OpenAPIV30SpecValidator)


def test_redocly_finds_nothing_in_it(document, tmp_path):
    # It asks nobody whether there is a newer one, and tells nobody that it ran.
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    found = json.loads(output([npm_packages() / ".bin/redocly", "lint", "openapi.json", "--extends", "recommended", "--format", "json"], tmp_path, **quiet))
    assert found["problems"] == []


def test_spectral_finds_nothing_in_it(document, tmp_path):
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "rules.yaml").write_text("extends: ['spectral:oas']")
    found = json.loads(output([npm_packages() / ".bin/spectral", "lint", "openapi.json", "--ruleset", "rules.yaml", "--quiet", "--format", "json"], tmp_path))
    assert found == []


def test_it_has_the_operations_of_zones_and_of_accounts(document):
    assert [server["url"] for server in document["servers"]] == ["/api/v4", "{origin}/api/v4", "{origin}/client/v4"]
    found = {(method, path) for path, operations in document["paths"].items() for method in operations if method in METHODS}
    wanted = set()
    for scope in ("/zones/{zone_id}", "/accounts/{account_id}"):
        wanted |= {("get", f"{scope}/custom_csrs"), ("post", f"{scope}/custom_csrs")}
        wanted |= {("get", f"{scope}/custom_csrs/{{custom_csr_id}}"), ("delete", f"{scope}/custom_csrs/{{custom_csr_id}}")}
    assert found >= wanted
    assert {path.split("/")[1] for _, path in found} == {"zones", "accounts"}


def test_every_operation_has_an_id_of_its_own_its_errors_and_needs_a_token(document):
    schemes = document["components"]["securitySchemes"]
    (name,) = [name for name, scheme in schemes.items() if (scheme["type"], scheme["scheme"]) == ("http", "bearer")]
    ids = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            assert {name: []} in operation.get("security", document.get("security", [])), (method, path)
            wanted = {"400", "401", "403", "404", "405", "413", "500", "503"} | {"201" if method == "post" and not path.endswith("/restore") else "200"}
            assert wanted <= set(operation["responses"]), (method, path)
    assert len(set(ids)) == len(ids)


def test_members_without_a_value_are_sent_as_null_and_said_to_be(document):
    schema = document["components"]["schemas"]["CustomCsr"]
    nullable = {name for name, member in schema["properties"].items() if member.get("nullable")}
    assert nullable == {"account_tag", "zone_id", "organizational_unit", "name", "description", "csr", "replaces", "set_id"}
    assert set(schema["properties"]) - set(schema["required"]) == {"error"}
    # 3.0 has no word for a null beside a named enum that generators in all languages understand.
    for name in ("CustomCsrEdit", "CustomCsrRekey", "CustomCsrRequest", "CustomCertificateEdit", "CustomCertificateRequest"):
        schema = document["components"]["schemas"][name]
        optional = {key: member for key, member in schema["properties"].items() if key not in schema.get("required", []) and "allOf" not in member}
        assert all(member["nullable"] for member in optional.values()), name


def test_members_have_the_types_that_generated_clients_need(document):
    schemas = document["components"]["schemas"]
    members = [(name, key, member) for name, schema in schemas.items() for key, member in schema.get("properties", {}).items()]
    times = {key: member.get("format") for _, key, member in members if re.search("_(at|on|before|after)$", key)}
    assert len(times) > 10 and set(times.values()) == {"date-time"}, times
    # The IDs of certificates have no hyphens, and no format.
    ids = {(name, key): member.get("format") for name, key, member in members if key in ("id", "replaces", "custom_csr_id")}
    others = {name: ids.pop((name, "id")) for name in ("CustomCertificate", "DeletedCustomCertificate", "Delivery")}
    assert len(ids) > 8 and set(ids.values()) == {"uuid"} and set(others.values()) == {None}, ids
    # A generator takes a member with a default for one that is always there.
    assert [(name, key) for name, key, member in members if "default" in member] == []
    for name in schemas:
        if name.endswith("Response"):
            is_error = name == "ErrorResponse"
            members = schemas[name]["properties"]
            assert members["success"]["enum"] == [not is_error] and members["errors"].get("maxItems") == (None if is_error else 0), name
    # In Go all enums share one name space.
    words = [word for schema in schemas.values() if "enum" in schema for word in schema.get("x-enum-varnames", schema["enum"])]
    assert len(words) - len(set(words)) <= len(schemas["KeyType"]["enum"]), words
    parameters = document["components"]["parameters"]
    assert (parameters["Page"]["schema"]["maximum"], parameters["PerPage"]["schema"]["maximum"]) == (2147483647, 50)
    assert document["components"]["headers"]["RetryAfter"]["schema"]["type"] == "integer"
    assert len(document["info"]["description"]) < 1000


def test_what_one_operation_makes_leads_to_the_operations_on_it(document):
    ids = {operation["operationId"]: operation for _, _, operation in Document(document).operations()}
    links = ids["zone-custom-csrs-create"]["responses"]["201"]["links"]
    assert {link["operationId"] for link in links.values()} == {f"zone-custom-csrs-{name}" for name in ("get", "edit", "delete", "rekey")}
    assert all(link["operationId"] in ids for operation in ids.values() for link in operation["responses"].get("201", {}).get("links", {}).values())


def test_everything_is_described(document):
    for _, _, operation in Document(document).operations():
        assert operation["summary"] and operation["description"], operation["operationId"]
        for status, response in operation["responses"].items():
            assert Document(document).follow(response)["description"], (operation["operationId"], status)


def test_it_says_who_it_is_from_and_names_make_good_methods(document):
    assert document["info"]["contact"]["name"] and document["info"]["license"]["url"].startswith("https://")
    tags = {tag["name"]: tag for tag in document["tags"]}
    assert all(tag["description"] and tag["x-displayName"] for tag in tags.values())
    for _, path, operation in Document(document).operations():
        (tag,) = operation["tags"]
        assert tag in tags and path.startswith(f"/{tag.split('-')[0]}s/"), operation["operationId"]
        assert re.fullmatch(f"{tag}-[a-z]+", operation["operationId"]), operation["operationId"]


def test_it_documents_the_headers_that_clients_send_and_heed(document):
    checked = Document(document)
    heeded, sent = set(), set()
    for _, _, operation in checked.operations():
        sent |= {parameter["name"] for parameter in map(checked.follow, operation["parameters"]) if parameter["in"] == "header"}
        for response in map(checked.follow, operation["responses"].values()):
            assert all(checked.follow(header)["description"] for header in response["headers"].values()), operation["operationId"]
            heeded |= set(response["headers"])
    assert sent == {"Prefer", "Idempotency-Key", "If-None-Match"}
    assert heeded >= {"Location", "Retry-After", "Preference-Applied", "Idempotent-Replayed", "X-Request-Id", "X-Should-Retry", "ETag", "Allow"}


def test_it_documents_every_code(document):
    text = json.dumps(document)
    numbers = [row["code"] for row in json.loads((ROOT / "shared/tests/data/status-codes.json").read_text())]
    for number in [*numbers, 1460, 1461, 1462, 1463, 1464, 1465, 1466, 1467, 1468, 1469, 1471, *range(1472, 1482), *range(2000, 2014), 7000, 7001]:
        assert str(number) in text, number
