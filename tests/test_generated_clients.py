"""
Clients that others' generators make from the OpenAPI document: each compiles, and leads a custom CSR from its making to its end.

How each is used is shown by its script or its crate in `generated_clients`.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ca import Authority
from document import Document
from harness import ROOT, Csrd, environment
from tools import npm_packages, output, target

CLIENTS = ROOT / "tests/generated_clients"
END = "-----END CERTIFICATE REQUEST-----"
TSC = ["node_modules/.bin/tsc", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022", "--types", "node"]
# What openapi-generator makes beside code is read by nobody here.
ONLY_CODE = {"apiTests": "false", "modelTests": "false", "apiDocs": "false", "modelDocs": "false"}


@pytest.fixture(scope="module")
def source(document, tmp_path_factory) -> Path:
    """The document, in a file."""
    (file := tmp_path_factory.mktemp("document") / "openapi.json").write_text(json.dumps(document))
    return file


@pytest.fixture(scope="module")
def made_by_openapi_generator(source) -> Path:
    """Its clients for Go, Python and fetch, all made by one process: each would start a Java of its own."""
    options = {
        # As docs/api.md has it.
        "go": {"packageName": "csrd", "disallowAdditionalPropertiesIfNotPresent": False, "withGoMod": False},
        "python": {"packageName": "csrd"},
        "typescript-fetch": {"importFileExtension": ".js"},
    }
    for generator, properties in options.items():
        mappings = {"nameMappings": {"set_id": "MatchedSetId"}} if generator == "go" else {}
        config = mappings | {"generatorName": generator, "inputSpec": "openapi.json", "outputDir": generator, "additionalProperties": properties}
        (source.parent / f"{generator}.json").write_text(json.dumps(config | {"globalProperties": ONLY_CODE}))
    output([Path(sys.prefix) / "bin/openapi-generator-cli", "batch", "--fail-fast", *(f"{generator}.json" for generator in options)], source.parent)
    return source.parent


def lead_through(service: Csrd, command: list, directory: Path) -> None:
    """Runs a client, which says its CSR and reads the chain that this test issues for it."""
    zone, ca = service.tenant(), Authority()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, f"{service.url}/api/v4", zone.token, zone.id], cwd=directory, env=environment(), **pipes)
    try:
        csr = ""
        while line := process.stdout.readline():
            csr += line
            if line.strip() == END:
                break
        shown, complained = process.communicate(ca.issue(csr) + ca.pem if END in csr else "", timeout=120)
    finally:
        process.kill()
        process.wait()
    # How many it listed, both names, the code of a refused delete, and that of what is gone.
    assert process.returncode == 0 and shown.splitlines() == ["7", "renamed", "no name", "1420", "1419"], (shown, complained)


def check_types(script: Path) -> None:
    """Of the script: what a generator writes is its own affair."""
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", "cache", script.name]
    output(command, script.parent)


def test_the_python_client_of_openapi_python_client_is_typed_and_works(service, document, source, tmp_path, monkeypatch):
    # The generator formats what it wrote with the ruff beside it.
    monkeypatch.setenv("PATH", sys.prefix + "/bin", prepend=":")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", source, "--meta", "none"]
    done = output([*command, "--output-path", tmp_path / "csrd_client", "--fail-on-warning"], tmp_path)
    modules = {path.stem for path in (tmp_path / "csrd_client" / "api").glob("*/*.py") if path.stem != "__init__"}
    assert modules == {operation["operationId"].replace("-", "_") for _, _, operation in Document(document).operations()}, done
    script = Path(shutil.copy(CLIENTS / "openapi_python.py", tmp_path))
    check_types(script)
    lead_through(service, [sys.executable, script], tmp_path)


def test_the_python_client_of_openapi_generator_is_typed_and_works(service, made_by_openapi_generator):
    script = Path(shutil.copy(CLIENTS / "openapi_generator.py", made_by_openapi_generator / "python"))
    check_types(script)
    lead_through(service, [sys.executable, script], script.parent)


def test_the_go_client_of_openapi_generator_compiles_and_works(service, made_by_openapi_generator):
    directory = made_by_openapi_generator / "module"
    shutil.copytree(made_by_openapi_generator / "go", directory / "csrd")
    (directory / "go.mod").write_text("module example\n\ngo 1.19\n")
    shutil.copy(CLIENTS / "openapi_generator.go", directory / "main.go")
    # It needs the standard library alone, so nothing is fetched.
    output(["go", "build", "-o", "client", "."], directory, GOPROXY="off", GOCACHE=f"{directory}/cache", GOFLAGS="-mod=mod", GO111MODULE="on")
    lead_through(service, [directory / "client"], directory)


def test_the_fetch_client_of_openapi_generator_is_typed_and_works(service, made_by_openapi_generator, tmp_path):
    (tmp_path / "node_modules").symlink_to(npm_packages())
    shutil.copytree(made_by_openapi_generator / "typescript-fetch", tmp_path / "csrd")
    lead_through(service, compiled("openapi_generator.mts", tmp_path), tmp_path)


def test_the_types_of_openapi_typescript_find_mistakes_and_openapi_fetch_works_with_them(service, source, tmp_path):
    (tmp_path / "node_modules").symlink_to(npm_packages())
    output(["node_modules/.bin/openapi-typescript", source, "--output", "csrd.d.ts"], tmp_path)
    more = ["--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--noUnusedLocals"]
    lead_through(service, compiled("openapi_fetch.mts", tmp_path, *more), tmp_path)


def test_the_client_of_hey_api_is_typed_and_works(service, source, tmp_path):
    (tmp_path / "node_modules").symlink_to(npm_packages())
    output(["node_modules/.bin/openapi-ts", "--input", source, "--output", "csrd", "--client", "@hey-api/client-fetch"], tmp_path)
    lead_through(service, compiled("hey_api.mts", tmp_path), tmp_path)


def compiled(script: str, directory: Path, *options: str) -> list:
    """The command of a script in TypeScript, compiled with what was generated for it."""
    shutil.copy(CLIENTS / script, directory)
    output([*TSC, *options, script], directory)
    return ["node", Path(script).with_suffix(".mjs")]


def test_the_rust_client_of_progenitor_works(service, tmp_path):
    program = target() / "debug/csrd-progenitor"
    assert program.is_file(), f"no {program}: `.ci/test` builds it"
    lead_through(service, [program], tmp_path)
