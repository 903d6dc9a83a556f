"""A database that refuses what a worker asks for costs no row: nothing fails, the health check says why, and all is made once it is mended."""

import subprocess
from contextlib import contextmanager

import httpx
import pytest
from harness import wait_until
from test_faults import Worker, new_cluster, postgres  # noqa: F401

REFUSE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'on purpose'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON custom_csrs FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION refuse();
"""
ROLE = """
CREATE ROLE "{role}" LOGIN;
GRANT USAGE ON SCHEMA public, apalis TO "{role}";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public, apalis TO "{role}";
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public, apalis TO "{role}";
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA apalis TO "{role}";
"""


class Refusing:
    """A cluster whose worker starts only when its database is broken."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.tenant = cluster.apis[0].tenant(quota=100)
        self.role = cluster.database + "_worker"
        self.sql(ROLE.format(role=self.role))
        cluster.worker_env["CSRD_DATABASE_URL"] = cluster.postgres.url(cluster.database).replace("csrd@", f"{self.role}@")

    def sql(self, statements: str) -> str:
        return self.cluster.postgres.sql(self.cluster.database, statements)

    def start(self) -> Worker:
        self.cluster.workers.append(Worker(self.cluster, "worker"))
        return self.cluster.workers[-1]

    def create(self) -> list[str]:
        return [self.tenant.create(key_type=key_type)["id"] for key_type in ("p256v1", "rsa2048", "p256v1")]

    def check_all_wait(self, ids: list[str], worker: Worker) -> None:
        """Long enough for many sweeps, whose interval is a second or less here."""

        def told():
            try:
                answer = httpx.get(worker.health, trust_env=False, timeout=5)
            except httpx.TransportError:
                return None
            return answer if answer.status_code == 503 else None

        answer = wait_until(told, "the worker is not ready").json()
        assert answer["errors"][0]["code"] == 1471, answer
        jobs = self.cluster.number("SELECT count(*) FROM apalis.jobs")
        wait_until(lambda: self.waits() or self.cluster.number("SELECT count(*) FROM apalis.jobs") >= jobs + 3 or worker.log_path.read_text().count("the sweep failed") >= 3, "it tries again")
        assert {self.tenant.get(csr_id)["status"] for csr_id in ids} == {"pending"}
        assert self.cluster.number("SELECT max(starts) FROM custom_csrs") <= 1
        log = worker.log_path.read_text()
        assert "ERROR" in log and log.count("ERROR") < 30, "said, and not for each row and try"

    def waits(self) -> bool:
        return self.cluster.number("SELECT count(*) FROM apalis.jobs WHERE run_at > now()") > 0

    def check_mended(self, ids: list[str], worker: Worker) -> None:
        for csr_id in ids:
            self.tenant.wait_active(csr_id, seconds=90)
        wait_until(worker.is_ready, "the worker is ready again")


@pytest.fixture
def refusing(new_cluster):  # noqa: F811
    return Refusing(new_cluster(apis=1, workers=0))


@pytest.mark.parametrize("when", ["NEW.status = 'active'", "NEW.starts > OLD.starts", "true"])
def test_a_trigger_that_raises_costs_no_row(refusing, when):
    ids = refusing.create()
    refusing.sql(REFUSE.format(when=when))
    worker = refusing.start()
    refusing.check_all_wait(ids, worker)
    refusing.sql("DROP TRIGGER refuse ON custom_csrs")
    refusing.check_mended(ids, worker)


def test_a_right_that_was_revoked_costs_no_row(refusing):
    ids = refusing.create()
    refusing.sql(f'REVOKE UPDATE ON custom_csrs FROM "{refusing.role}"')
    worker = refusing.start()
    refusing.check_all_wait(ids, worker)
    refusing.sql(f'GRANT UPDATE ON custom_csrs TO "{refusing.role}"')
    refusing.check_mended(ids, worker)


@pytest.mark.parametrize("broken", ["REVOKE ALL ON pool_keys FROM \"{role}\"", "ALTER TABLE pool_keys RENAME TO away", "DROP TABLE pool_keys"])
def test_a_key_pool_that_cannot_be_used_keeps_nothing_from_being_made(refusing, broken):
    refusing.sql(broken.format(role=refusing.role))
    worker = refusing.start()
    wait_until(worker.is_ready, "the worker is ready all the same")
    for csr_id in refusing.create():
        refusing.tenant.wait_active(csr_id)
    assert "WARN" in worker.log_path.read_text()


@contextmanager
def small_disk(directory, mib: int):
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0777", "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_tablespace_that_is_full_costs_no_row(refusing):
    directory = refusing.cluster.postgres.directory / "small"
    with small_disk(directory, 4):
        (directory / "space").mkdir(mode=0o700)
        subprocess.run(["chown", "postgres:", directory / "space"], check=True)
        refusing.sql(f"CREATE TABLESPACE small LOCATION '{directory}/space'")
        refusing.sql("ALTER TABLE custom_csrs SET TABLESPACE small")
        ids = refusing.create()
        # Whatever is left of its pages is filled too: the next version of a row needs a new one.
        with (directory / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(b"x" * 4096)

        refusing.sql("ALTER TABLE custom_csrs ALTER COLUMN csr_pem SET STORAGE PLAIN, ALTER COLUMN sealed_private_key SET STORAGE PLAIN")
        worker = refusing.start()
        wait_until(lambda: not worker.is_ready() and "No space left" in worker.log_path.read_text(), "the log names it", 60)
        assert refusing.tenant.total(status="failed") == 0
        (directory / "filler").unlink()
        refusing.check_mended(ids, worker)
        refusing.sql("ALTER TABLE custom_csrs SET TABLESPACE pg_default")
        refusing.sql("DROP TABLESPACE small")
