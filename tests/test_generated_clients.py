"""Clients that others' generators make from the OpenAPI document: each compiles, and works."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from ca import Authority
from document import Document
from harness import ROOT, environment
from tools import npm_packages, output


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
