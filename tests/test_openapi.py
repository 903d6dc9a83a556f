"""The OpenAPI document, as other people's tools read it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ca import Authority
from document import METHODS, Document, codes_of
from harness import ROOT, environment, subject
from openapi_spec_validator import OpenAPIV30SpecValidator, validate


@pytest.fixture(scope="module")
def document(service) -> dict:
    response = service.client.get(f"{service.url}/openapi.json")
    assert response.status_code == 200
    assert response.headers["Content-Type"].split(";")[0] == "application/json"
    assert response.headers["X-Request-Id"]
    return response.json()


def test_it_is_served_as_json_and_as_yaml_and_both_are_the_committed_one(service, document):
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


def npm_packages() -> Path:
    """Where `.ci/test` installs what reads the document."""
    packages = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "npm-openapi/node_modules"
    assert packages.is_dir(), f"no {packages}: `.ci/test` installs it"
    return packages


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
            wanted = {"400", "401", "403", "404", "405", "413", "500", "503"} | {"201" if method == "post" else "200"}
            assert wanted <= set(operation["responses"]), (method, path)
    assert len(set(ids)) == len(ids)


def test_every_example_is_one_that_its_schema_allows(document):
    checked, count = Document(document), 0
    for method, path, operation in checked.operations():
        parts = [operation.get("requestBody", {}), *map(checked.follow, operation["responses"].values())]
        for media_type, content in [found for part in parts for found in part.get("content", {}).items()]:
            if content["schema"].get("format") == "binary":
                continue
            for example in [entry["value"] for entry in content.get("examples", {}).values()] or [content["example"]]:
                assert checked.faults(content["schema"], example) == [], (method, path, media_type)
                count += 1
    assert count > 200
    errors = [checked.follow(operation["responses"]["404"]) for _, _, operation in checked.operations()]
    assert all(error["content"]["application/json"]["example"]["success"] is False for error in errors)


def test_the_example_of_every_error_is_one_that_its_operation_can_answer(document):
    checked, count = Document(document), 0
    listed = {row["code"]: row for row in document["components"]["schemas"]["Message"]["properties"]["code"]["x-error-codes"]}
    for _, _, operation in checked.operations():
        parameters = [checked.follow(parameter) for parameter in operation["parameters"]]
        body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {"schema": {}})["schema"]
        inputs = {("pointer", f"/{name}") for name in checked.follow(body).get("properties", {})}
        inputs |= {("parameter", parameter["name"]) for parameter in parameters if parameter["in"] == "query"}
        inputs |= {("header", parameter["name"]) for parameter in parameters if parameter["in"] == "header"}
        inputs |= {("header", "Accept"), ("header", "Content-Encoding")}
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            response = checked.follow(response)
            example, where = response["content"]["application/json"]["example"], (operation["operationId"], status)
            (error,) = example["errors"]
            assert error["code"] in codes_of(response["description"]), where
            assert str(listed[error["code"]]["status"]) == status, where
            assert set(error.get("source", {}).items()) <= inputs, where
            assert [(hint["code"], hint.get("source")) for hint in example["messages"]] in ([], [(2100, error.get("source"))]), where
            count += 1
    assert count > 150


def test_the_examples_of_errors_are_what_the_service_answers(new_csrd, document):
    # Without workers a custom CSR stays pending.
    csrd = new_csrd("--workers", "0").start()
    token, zone = csrd.token("--zone", "demo"), "/api/v4/zones/demo"
    key = {"Idempotency-Key": "one"}
    pending = csrd.request("POST", f"{zone}/custom_csrs", token=token, json=subject(), headers=key).result["id"]
    none, other = "01890a5d-ac96-774b-bcce-b302099a8057", csrd.token("--zone", "other")
    operations = {operation["operationId"]: operation for _, _, operation in Document(document).operations()}
    certificate = operations["zone-custom-certificates-create"]["requestBody"]["content"]["application/json"]["example"]["certificate"]
    one, file = f"{zone}/custom_csrs/{pending}", {"Accept": "application/x-pem-file"}
    answers = [
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(country="")}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"token": None, "headers": {"Authorization": "x"}}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(), "headers": {"Content-Encoding": "gzip"}}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(description="x" * 70_000)}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(name="x"), "headers": key}),
        ("custom-csrs-list", "GET", f"{zone}/custom_csrs?per_page=100", {}),
        ("custom-csrs-list", "GET", f"{zone}/custom_csrs", {"token": other}),
        ("custom-csrs-quota", "GET", "/api/v4/zones//custom_csrs/quota", {}),
        ("custom-csrs-get", "GET", f"{zone}/custom_csrs/1", {}),
        ("custom-csrs-get", "GET", f"{zone}/custom_csrs/{none}", {}),
        ("custom-csrs-get", "GET", one, {"headers": file}),
        ("custom-csrs-rekey", "POST", f"{one}/rekey", {}),
        ("custom-csrs-rekey", "POST", f"{one}/rekey", {"json": {"key_type": "x"}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": "-----BEGIN CERTIFICATE-----"}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate, "custom_csr_id": none}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate, "custom_csr_id": pending}}),
        ("custom-certificates-get", "GET", f"{zone}/custom_certificates/1", {}),
        ("custom-certificates-get", "GET", f"{zone}/custom_certificates/{none.replace('-', '')}", {}),
    ]
    for name, method, path, arguments in answers:
        answer = csrd.request(method, path, **({"token": token} | arguments))
        response = Document(document).follow(operations[f"zone-{name}"]["responses"][str(answer.status)])
        assert answer.envelope == response["content"]["application/json"]["example"], (name, answer.status)


def test_the_example_of_a_create_makes_a_custom_csr_in_the_zone_of_the_examples(new_csrd, document):
    csrd = new_csrd().start()
    create = document["paths"]["/zones/{zone_id}/custom_csrs"]["post"]
    zone = document["components"]["parameters"]["ZoneId"]["example"]
    body = create["requestBody"]["content"]["application/json"]["example"]
    answer = csrd.request("POST", f"/api/v4/zones/{zone}/custom_csrs", token=csrd.token("--zone", zone), json=body, headers={"Prefer": "wait=10"})
    assert answer.status == 201 and answer.result["status"] == "active" and answer.envelope["messages"] == []


def test_members_without_a_value_are_sent_as_null_and_said_to_be(document):
    schema = document["components"]["schemas"]["CustomCsr"]
    nullable = {name for name, member in schema["properties"].items() if member.get("nullable")}
    assert nullable == {"account_tag", "zone_id", "organizational_unit", "name", "description", "csr", "replaces"}
    assert set(schema["properties"]) - set(schema["required"]) == {"error"}
    # 3.0 has no word for a null beside a named enum that generators in all languages understand.
    for name in ("CustomCsrEdit", "CustomCsrRekey", "CustomCsrRequest", "CustomCertificateEdit", "CustomCertificateRequest"):
        schema = document["components"]["schemas"][name]
        optional = {key: member for key, member in schema["properties"].items() if key not in schema.get("required", []) and "allOf" not in member}
        assert all(member["nullable"] for member in optional.values()), name


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


def test_it_documents_every_code(document):
    text = json.dumps(document)
    numbers = [row["code"] for row in json.loads((ROOT / "shared/tests/data/status-codes.json").read_text())]
    for number in [*numbers, 1460, 1461, 1462, 1463, 1464, 1465, 1466, 1467, 1468, 1469, 1471, *range(1472, 1482), *range(2000, 2013), 7000, 7001]:
        assert str(number) in text, number


def test_a_client_that_is_generated_from_it_works_and_its_types_are_right(new_csrd, document, tmp_path, monkeypatch):
    (source := tmp_path / "openapi.json").write_text(json.dumps(document))
    # The generator formats what it wrote with the ruff beside it.
    monkeypatch.setenv("PATH", sys.prefix + "/bin", prepend=":")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", source, "--meta", "none"]
    done = output([*command, "--output-path", tmp_path / "csrd_client", "--fail-on-warning"], tmp_path)
    modules = {path.stem for path in (tmp_path / "csrd_client" / "api").glob("*/*.py") if path.stem != "__init__"}
    assert modules == {operation["operationId"].replace("-", "_") for _, _, operation in Document(document).operations()}, done

    script = shutil.copy(ROOT / "tests/generated_client.py", tmp_path)
    # What the generator itself writes is its own affair.
    output([sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", tmp_path / "cache", script], tmp_path)
    csrd = new_csrd().start()
    shown = output([sys.executable, script, f"{csrd.url}/api/v4", csrd.token("--zone", "demo"), "demo"], tmp_path)
    assert shown.splitlines() == ["-----BEGIN CERTIFICATE REQUEST-----", "['shop']", "None", "1419"]


def test_the_types_that_openapi_typescript_makes_lead_through_the_whole_loop(new_csrd, document, tmp_path):
    (tmp_path / "node_modules").symlink_to(npm_packages())
    (source := tmp_path / "openapi.json").write_text(json.dumps(document))
    output(["node_modules/.bin/openapi-typescript", source, "--output", "csrd.d.ts"], tmp_path)
    shutil.copy(ROOT / "tests/generated_client.mts", tmp_path)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--noUnusedLocals", "--skipLibCheck"]
    output(["node_modules/.bin/tsc", *strict, "--module", "nodenext", "--target", "es2022", "--types", "node", "generated_client.mts"], tmp_path)

    csrd, ca = new_csrd().start(), Authority()
    command = ["node", "generated_client.mjs", f"{csrd.url}/api/v4", csrd.token("--zone", "demo"), "demo"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), **pipes)
    try:
        # The script says its CSR, this test is the CA.
        csr = json.loads(process.stdout.readline() or "null")
        shown, complained = process.communicate(json.dumps(ca.issue(csr) + ca.pem) if csr else "", timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and shown.splitlines() == ["7", "null", "1420", "1419 The custom CSR was not found."], (shown, complained)


def test_the_go_client_that_openapi_generator_makes_compiles_and_works(new_csrd, document, tmp_path):
    (source := tmp_path / "openapi.json").write_text(json.dumps(document))
    # As docs/api.md has it, but for what nobody compiles.
    only_code = ["--global-property", "apiTests=false,modelTests=false,apiDocs=false,modelDocs=false"]
    options = "disallowAdditionalPropertiesIfNotPresent=false,withGoMod=false"
    command = [Path(sys.prefix) / "bin/openapi-generator-cli", "generate", "-i", source, "-g", "go", "-o", tmp_path / "csrd"]
    output([*command, "--package-name", "csrd", "--additional-properties", options, *only_code], tmp_path)
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.19\n")
    shutil.copy(ROOT / "tests/generated_client.go", tmp_path / "main.go")
    # It needs the standard library alone, so nothing is fetched.
    output(["go", "build", "-o", "client", "."], tmp_path, GOPROXY="off", GOCACHE=f"{tmp_path}/cache", GOFLAGS="-mod=mod", GO111MODULE="on")
    csrd = new_csrd().start()
    shown = output([tmp_path / "client", f"{csrd.url}/api/v4", csrd.token("--zone", "demo"), "demo"], tmp_path)
    assert shown.splitlines() == ["-----BEGIN CERTIFICATE REQUEST-----", "1 shop 1", "true true", "1405", "1419"]


def output(command: list, directory, **variables: str) -> str:
    """What a command that has to succeed prints."""
    env = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=directory, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
