"""Fixtures of the black-box tests. They need a built csrd: `CSRD_BIN`, by default the one in `target/debug`."""

import os

import pytest
from harness import Csrd, Tenant

# A proxy in the environment is not for 127.0.0.1.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that skips itself has not tested anything: it fails."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Csrd:
    """One running csrd for all tests of a process that bring their own zone or account."""
    csrd = Csrd(tmp_path_factory.mktemp("service")).start()
    yield csrd
    csrd.close()


@pytest.fixture
def zone(service) -> Tenant:
    return service.tenant("zone")


@pytest.fixture
def account(service) -> Tenant:
    return service.tenant("account")


@pytest.fixture
def new_csrd(tmp_path):
    """Makes csrd objects with data directories of their own; whatever runs at the end of the test is killed."""
    made = []

    def make(*arguments, name="csrd", **options) -> Csrd:
        made.append(Csrd(tmp_path / name, *arguments, **options))
        return made[-1]

    yield make
    for csrd in made:
        csrd.close()
