"""The Dockerfile, the compose file and the Kubernetes manifests: their schemas accept them, and csrd runs with the commands and settings that they give it."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from harness import ROOT, Tenant, binary, wait_until
from pages import DOCS, blocks, run_there
from postgres import Postgres
from test_faults import Api

DOCKERFILE = ROOT / "Dockerfile"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
KUBERNETES = ROOT / "deploy/kubernetes"
# The user of the image.
USER = 65532
# What is in the last stage's image, which has no package manager to add more.
LIBRARIES = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"}


def manifests() -> list[dict]:
    return [manifest for path in sorted(KUBERNETES.glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())]


def pods() -> dict[str, dict]:
    """The pods that the manifests make, by the name of what makes them."""
    return {manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"] for manifest in manifests() if "template" in manifest["spec"]}


def test_hadolint_has_nothing_to_say_against_the_dockerfile(tmp_path):
    hadolint = Path(sys.executable).parent / "hadolint"

    def complaints(path: Path) -> str:
        return subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, timeout=60, check=False).stdout

    assert complaints(DOCKERFILE) == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text(DOCKERFILE.read_text().replace("WORKDIR /src", "WORKDIR src"))
    assert "DL3000" in complaints(worse)


def test_csrd_needs_no_library_that_the_image_lacks():
    needed = subprocess.run(["ldd", binary()], capture_output=True, text=True, timeout=60, check=True).stdout
    names = {line.split()[0] for line in needed.splitlines()}
    assert "libc.so.6" in names
    assert {name for name in names if "ld-linux" not in name} <= LIBRARIES, needed


def test_the_compose_file_keeps_to_its_schema():
    # With the merges (`<<`) done, as Compose does them first.
    resolved = json.dumps(yaml.safe_load(COMPOSE.read_text()))
    PyCompose.from_json(resolved).to_spec()
    with pytest.raises(ValueError, match="depend_on"):
        PyCompose.from_json(resolved.replace("depends_on", "depend_on"))


def test_each_manifest_keeps_to_the_schema_of_kubernetes():
    made = manifests()
    kinds = sorted(f"{manifest['kind']} {manifest['metadata']['name']}" for manifest in made)
    assert kinds == [
        "Deployment csrd-api",
        "Deployment csrd-worker",
        "Job csrd-migrate",
        "PodDisruptionBudget csrd-api",
        "PodDisruptionBudget csrd-worker",
        "Service csrd",
    ]
    for manifest in made:
        kubernetes_validate.validate(manifest, "1.37", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest | {"spec": manifest["spec"] | {"replica": 2}}, "1.37", strict=True)


def test_no_pod_has_more_rights_than_it_needs():
    assert len(pods()) == 3
    for name, pod in pods().items():
        (container,) = pod["containers"]
        assert pod["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER}.items(), name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"} and pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
    assert re.findall(r"^USER (.+)$", DOCKERFILE.read_text(), re.MULTILINE) == [f"{USER}:{USER}"]


def test_services_and_disruption_budgets_find_their_pods_and_probes_their_ports():
    labels = {manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"] for manifest in manifests() if "template" in manifest["spec"]}
    for manifest in manifests():
        selector = manifest["spec"].get("selector")
        if manifest["kind"] == "Job":
            continue
        wanted = selector.get("matchLabels", selector)
        found = [name for name, of_pod in labels.items() if wanted.items() <= of_pod.items()]
        assert found == [{"csrd": "csrd-api"}.get(manifest["metadata"]["name"], manifest["metadata"]["name"])], manifest
    for name in ("csrd-api", "csrd-worker"):
        (container,) = pods()[name]["containers"]
        (port,) = container["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] == port["name"], (name, probe)


@dataclass
class Role:
    """What a container is started with."""

    arguments: list[str]
    env: dict[str, str]


def of_compose() -> dict[str, Role]:
    services = {name: service for name, service in yaml.safe_load(COMPOSE.read_text())["services"].items() if service["image"] == "csrd"}
    return {name: Role(service["command"], service["environment"]) for name, service in services.items()}


def of_kubernetes() -> dict[str, Role]:
    roles = {}
    for name, pod in pods().items():
        (container,) = pod["containers"]
        env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
        roles[name.removeprefix("csrd-")] = Role(container["args"], env)
    # The guide has the operator make it once.
    return roles | {"master-key": Role(["keys", "init"], {})}


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.close()


@pytest.mark.parametrize("roles", [of_compose, of_kubernetes], ids=["compose", "kubernetes"])
def test_what_the_containers_run_makes_a_csr(roles, postgres, tmp_path):
    roles, database = roles(), postgres.url(postgres.create_database())
    assert sorted(roles) == ["api", "master-key", "migrate", "worker"]
    of_the_image = dict(re.findall(r"(CSRD_\w+)=(\S+)", DOCKERFILE.read_text()))
    assert of_the_image

    def place(value: str, directory: Path) -> str:
        value = re.sub(r"0\.0\.0\.0:\d+", "127.0.0.1:0", value.replace("/var/lib/csrd", f"{directory}/data"))
        return re.sub("/(run/secrets|etc/csrd)", str(directory), value)

    def service(name: str, directory: Path) -> Api:
        settings = {key: place(value, directory) for key, value in (of_the_image | roles[name].env).items()}
        return Api(directory, listen=None, env=settings | {"CSRD_DATABASE_URL": database})

    def run_to_its_end(name: str, directory: Path) -> None:
        done = subprocess.run(
            [binary(), *roles[name].arguments], env=service(name, directory).env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done

    run_to_its_end("migrate", tmp_path / "migrate")
    run_to_its_end("master-key", tmp_path / "worker")
    # What Kubernetes makes of a secret's file for a group.
    (tmp_path / "worker/data/master.key").chmod(0o440)
    api, worker = service("api", tmp_path / "api"), service("worker", tmp_path / "worker")
    (jwks,) = blocks(DOCS / "how-to/identity-provider.md", "python")
    token = run_there(api.directory, sys.executable, "-c", jwks).strip()
    try:
        worker.spawn(binary(), *roles["worker"].arguments)
        api.spawn(binary(), *roles["api"].arguments).wait_listening(ready=False)
        wait_until(lambda: worker.check_runs() and api.is_up("/health/ready"), "the API sees a worker", 120)
        done = subprocess.run([binary(), "zone", "grant", "demo", "--quota", "100"], env=api.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        demo = Tenant(api, "zone", "demo", token)
        assert demo.wait_active(demo.create(key_type="p256v1")["id"], 120)["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
        # Their file systems are read-only: the API writes nothing, and a worker nothing beside its key.
        assert not api.data_dir.exists()
        assert [path.name for path in worker.data_dir.iterdir()] == ["master.key"]
        assert (worker.stop(), api.stop()) == (0, 0)
    finally:
        worker.close()
        api.close()
