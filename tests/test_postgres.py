"""PostgreSQL as operators set it up: TLS, roles, the demo identity."""

import subprocess

import pytest
from harness import run, wait_until
from postgres import Postgres
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


def test_the_demo_identity_is_made_in_an_empty_data_directory_whoever_sealed_on_the_database(postgres, new_cluster, new_api):  # noqa: F811
    cluster = new_cluster(apis=0, workers=1)
    wait_until(cluster.workers[0].is_ready, "the worker is ready")
    api = new_api("api", "--workers", "0", CSRD_DATABASE_URL=postgres.url(cluster.database)).start()
    assert api.request("GET", "/api/v4/zones/demo/custom_csrs", token=api.token("--zone", "demo")).status == 200
