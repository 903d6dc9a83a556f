"""PostgreSQL as operators set it up: TLS, roles, the demo identity."""

import re
import shlex
import subprocess
import sys

import pytest
from harness import Tenant, binary, run, wait_until
from postgres import Postgres
from test_documents import OPERATIONS, blocks, run_shell, run_there
from test_faults import Api, new_cluster, postgres  # noqa: F401


@pytest.fixture
def new_api(tmp_path):
    """Makes processes whose other commands have their settings too."""
    made = []

    def make(name: str, *arguments: str, **env: str) -> Api:
        made.append(Api(tmp_path / name, *arguments, env=env))
        return made[-1]

    yield make
    for api in made:
        api.close()


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, a certificate for `localhost` that it issued, and another CA."""
    path = tmp_path_factory.mktemp("certificates")
    for name in ("ca", "other-ca"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path / f"{name}.key", "-out", path / f"{name}.crt", "-subj", f"/CN={name}")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", path / "server.key", "-out", path / "server.csr", "-subj", "/CN=localhost")
    (path / "extensions").write_text("subjectAltName=DNS:localhost\n")
    ca = ("-CA", path / "ca.crt", "-CAkey", path / "ca.key", "-CAcreateserial", "-extfile", path / "extensions")
    openssl("x509", "-req", "-in", path / "server.csr", *ca, "-out", path / "server.crt")
    return path


@pytest.fixture(scope="module")
def tls_postgres(certificates):
    """A server that takes connections with TLS only."""
    server = Postgres(tls=(certificates / "server.crt", certificates / "server.key"))
    yield server
    server.close()


def test_everything_works_over_tls_that_the_url_asks_for(tls_postgres, certificates, new_api):
    url = f"postgres://csrd@localhost:{tls_postgres.port}/{tls_postgres.create_database()}"
    csrd = new_api("csrd", CSRD_DATABASE_URL=f"{url}?sslmode=verify-full&sslrootcert={certificates}/ca.crt")
    tenant = csrd.start().tenant()
    tenant.wait_active(tenant.create()["id"])
    connections = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'csrd' AND ssl"
    assert int(tls_postgres.sql("postgres", connections)) > 2


@pytest.mark.parametrize(
    "host, parameters",
    [
        ("localhost", "sslmode=verify-full&sslrootcert={path}/other-ca.crt"),
        ("localhost", "sslmode=verify-ca&sslrootcert={path}/other-ca.crt"),
        ("localhost", "sslmode=verify-full&sslrootcert={path}/nothing.crt"),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert={path}/ca.crt"),
        ("localhost", "sslmode=disable"),
    ],
)
def test_a_server_that_does_not_prove_who_it_is_is_refused(tls_postgres, certificates, host, parameters):
    url = f"postgres://csrd@{host}:{tls_postgres.port}/postgres?{parameters.format(path=certificates)}"
    done = run("zone", "list", "--database-url", url)
    assert done.returncode == 1 and done.stdout == "", done
    refused = ("csrd: the database server refuses: ", f"csrd: the database server {host}:{tls_postgres.port} cannot be reached: ")
    assert done.stderr.startswith(refused) and done.stderr.count("\n") == 1, done


def test_many_processes_run_by_the_documented_steps_with_the_documented_roles(postgres, new_api, tmp_path):  # noqa: F811
    def placed(text: str) -> str:
        text = text.replace("db.example.net", f"127.0.0.1:{postgres.port}").replace("0.0.0.0:8080", "127.0.0.1:0").replace("/etc/csrd", f"{tmp_path}")
        return text.replace("/var/lib/csrd", f"{tmp_path}/keys").replace("127.0.0.1:8081", "127.0.0.1:0")

    (roles,), (jwks,) = (blocks(OPERATIONS, language) for language in ("sql", "python"))
    (once,) = [block for block in blocks(OPERATIONS, "sh") if "csrd migrate" in block]
    as_superuser = ("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", postgres.url("postgres"), "-f", "roles.sql")
    (tmp_path / "roles.sql").write_text(roles)
    run_there(tmp_path, *as_superuser)
    early = run("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "early", "--database-url", postgres.url("csrd", role="csrd_service"))
    assert early.returncode == 1 and "permission denied" in early.stderr, early

    run_shell(tmp_path, placed(once))
    token = run_there(tmp_path, sys.executable, "-c", jwks).strip()
    worker, serve = (new_api(name) for name in ("worker", "serve"))
    for process in (worker, serve):
        (line,) = re.findall(rf"^csrd {process.directory.name} .*", "\n".join(blocks(OPERATIONS, "text")[1:]), re.MULTILINE)
        process.spawn(binary(), *shlex.split(placed(line))[1:])
    serve.wait_listening()
    tenant = Tenant(serve, "zone", "demo", token)
    made = [tenant.create(key_type=key_type)["id"] for key_type in ("rsa2048", "p256v1")]
    assert {tenant.wait_active(csr_id)["id"] for csr_id in made} == set(made)
    assert tenant.request("DELETE", f"/{made[0]}").status == 200
    run_shell(tmp_path, placed("csrd keys check --data-dir /var/lib/csrd --database-url postgres://csrd_service@db.example.net/csrd"))
    assert "permission denied" not in serve.log() + worker.log()


def test_the_demo_identity_is_made_in_an_empty_data_directory_whoever_sealed_on_the_database(postgres, new_cluster, new_api):  # noqa: F811
    cluster = new_cluster(apis=0, workers=1)
    wait_until(cluster.workers[0].is_ready, "the worker is ready")
    api = new_api("api", "--workers", "0", CSRD_DATABASE_URL=postgres.url(cluster.database)).start()
    assert api.request("GET", "/api/v4/zones/demo/custom_csrs", token=api.token("--zone", "demo")).status == 200
