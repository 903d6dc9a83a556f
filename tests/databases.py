"""One csrd on SQLite and one on PostgreSQL, for tests of what both have to do alike."""

import sqlite3
from contextlib import closing, contextmanager

import pytest
from harness import Csrd
from postgres import Postgres
from test_faults import Api


# Makes a custom CSR one whose key could not be generated.
FAIL = (
    "UPDATE custom_csrs SET status = 'failed', error = 'by a test', csr_pem = NULL, spki_sha256 = NULL, master_key_id = NULL, "
    "sealed_private_key = NULL WHERE id = '{}'"
)


class OnSqlite(Csrd):
    def sql(self, *statements: str) -> list[tuple]:
        """Runs statements in one transaction, beside the service; returns the rows of the last."""
        with closing(sqlite3.connect(self.data_dir / "csrd.db", timeout=15)) as database:
            with database:
                database.execute("BEGIN IMMEDIATE")
                return [database.execute(statement).fetchall() for statement in statements][-1]


class OnPostgres(Api):
    postgres: Postgres
    database: str

    def sql(self, *statements: str) -> list[tuple]:
        """Runs statements in one transaction, beside the service; returns the rows of the last."""
        output = self.postgres.sql(self.database, ";".join(statements))
        return [tuple(line.split("|")) for line in output.splitlines() if not line.startswith(("INSERT", "UPDATE", "DELETE", "CREATE", "DROP"))]


@pytest.fixture(scope="module")
def new_service(tmp_path_factory):
    """Makes csrds on a database of their own, which end with the module."""
    made, servers = [], []

    def make(kind: str, *arguments: str, env: dict | None = None) -> OnSqlite | OnPostgres:
        directory = tmp_path_factory.mktemp(kind)
        if kind == "sqlite":
            csrd = OnSqlite(directory, *arguments, env=env)
        else:
            if not servers:
                servers.append(Postgres())
            database = servers[0].create_database()
            csrd = OnPostgres(directory, *arguments, env={"CSRD_DATABASE_URL": servers[0].url(database)} | (env or {}))
            csrd.postgres, csrd.database = servers[0], database
        made.append(csrd)
        return csrd.start()

    yield make
    for csrd in made:
        csrd.close()
    for server in servers:
        server.close()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def either(request, new_service) -> OnSqlite | OnPostgres:
    """A service on each database."""
    return new_service(request.param)


def audit_table(csrd: OnSqlite | OnPostgres) -> str:
    """The name of the table, wherever it is."""
    query = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE '%audit%'"
        if isinstance(csrd, OnSqlite)
        else "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%audit%'"
    )
    ((name,),) = csrd.sql(query)
    return name


@contextmanager
def blocked(csrd: OnSqlite | OnPostgres):
    """The database refuses every new audit entry."""
    table = audit_table(csrd)
    if isinstance(csrd, OnSqlite):
        csrd.sql(f"CREATE TRIGGER test_block BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'blocked by a test'); END")
    else:
        csrd.sql(
            "CREATE FUNCTION test_block() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'blocked by a test'; END $$",
            f"CREATE TRIGGER test_block BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION test_block()",
        )
    try:
        yield
    finally:
        csrd.sql("DROP TRIGGER test_block" if isinstance(csrd, OnSqlite) else "DROP FUNCTION test_block() CASCADE")
