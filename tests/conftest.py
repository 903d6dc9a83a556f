"""Fixtures of the black-box tests. They need a built csrd: `CSRD_BIN`, by default the one in `target/debug`."""

import os

import pytest
from harness import SECRET, Csrd, Tenant

# A proxy in the environment is not for 127.0.0.1.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

MADE = pytest.StashKey[list[Csrd]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that skips itself has not tested anything: it fails."""
    report = yield
    if report.failed:
        for csrd in [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Csrd)] + item.stash.get(MADE, []):
            report.sections.append((f"log of {csrd.directory.name}", csrd.log()[-4000:]))
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Prints what tests counted and measured."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, value in getattr(report, "user_properties", ()):
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid}: {value}")


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Csrd:
    """One running csrd for all tests of a process that bring their own zone or account."""
    csrd = Csrd(tmp_path_factory.mktemp("service")).start()
    yield csrd
    csrd.close()


@pytest.fixture(scope="session")
def document(service) -> dict:
    """The OpenAPI document, as it is served."""
    response = service.client.get(f"{service.url}/openapi.json")
    assert response.status_code == 200, response
    return response.json()


@pytest.fixture
def zone(service) -> Tenant:
    return service.tenant("zone")


@pytest.fixture
def new_csrd(tmp_path, request):
    """Makes csrd objects with data directories of their own; whatever runs at the end of the test is killed."""
    made = request.node.stash[MADE] = []

    def make(*arguments, name="csrd", **options) -> Csrd:
        made.append(Csrd(tmp_path / name, *arguments, **options))
        return made[-1]

    yield make
    for csrd in made:
        csrd.close()


@pytest.fixture
def unharmed(service, zone):
    """After each test nothing was written for the zone, nothing has panicked, and the service works."""
    began = service.log_path.stat().st_size
    yield
    assert zone.total() == 0
    assert service.is_up("/health/ready")
    assert b"panicked" not in service.log_path.read_bytes()[began:]
    csr_id = zone.create()["id"]
    zone.wait_active(csr_id)


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_text(SECRET + "\n")
    return path
