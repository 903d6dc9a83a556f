"""Uploads, renewals and deletes that meet: whoever comes first, what is left fits together. On both databases, each 200 times."""

import collections
import threading
import time

import httpx
import pytest
from ca import SECOND, Authority, Certificates
from databases import OnPostgres, OnSqlite, new_service  # noqa: F401
from harness import wait_until

TIMES = 200
# Fewer wins of one side would say that the two hardly met.
ENOUGH = 10
# As many certificates may use one custom CSR.
MOST = 20
ROOT = Authority()


class Runner:
    """A thread that sends a request whenever it is told to, over a connection of its own."""

    def __init__(self, start: threading.Barrier, url: str, token: str):
        self.start, self.token = start, token
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=30, headers={"Authorization": f"Bearer {token}"})

    def run(self, requests: list, answers: list, head_start: "HeadStart | None") -> None:
        for method, path, body in requests:
            self.start.wait(60)
            if head_start:
                time.sleep(head_start.seconds)
            answer = self.client.request(method, path, json=body)
            answers.append((answer.status_code, *(error["code"] for error in answer.json()["errors"])))
            self.start.wait(60)
            if head_start:
                head_start.learn(answers[-1])
        self.client.close()


class HeadStart:
    """How much later the second request is sent, found out on the way, so that either may win: else it is no race."""

    STEP = 0.0002

    def __init__(self):
        self.seconds = 0.0

    def learn(self, second: tuple) -> None:
        self.seconds = self.seconds + self.STEP if second == (200,) else max(0.0, self.seconds - self.STEP)


class Racers:
    """Two requests at the same time, again and again; on PostgreSQL to two processes."""

    def __init__(self, csrd: OnSqlite | OnPostgres, other):
        self.csrd, self.zone = csrd, csrd.tenant(quota=10 * TIMES)
        self.certificates, self.urls = Certificates(self.zone), [csrd.url, other.url]

    def custom_csrs(self, number: int = TIMES) -> list[dict]:
        """So many active custom CSRs."""
        for _ in range(number):
            self.zone.create()
        wait_until(lambda: self.zone.total(status="pending") == 0, "nothing is pending", 90)
        rows = self.zone.all()
        assert len(rows) == number and {row["status"] for row in rows} == {"active"}
        return rows

    def race(self, left: list, right: list, *, even: bool = True) -> list[tuple]:
        """The answers to each pair of requests; where the left ones take longer, they get a head start."""
        start, answers = threading.Barrier(2), ([], [])
        threads = []
        for url, requests, said, head_start in zip(self.urls, (left, right), answers, (None, None if even else HeadStart()), strict=True):
            runner = Runner(start, url, self.zone.token)
            threads.append(threading.Thread(target=runner.run, args=(requests, said, head_start), daemon=True))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
        assert len(answers[0]) == len(answers[1]) == len(left) == len(right)
        return list(zip(*answers, strict=True))

    def csr_path(self, csr: dict) -> str:
        return f"{self.zone.path}/{csr['id']}"

    def upload(self, csr: dict) -> tuple:
        return "POST", self.certificates.path, {"custom_csr_id": csr["id"], "certificate": chain(csr)}

    def check(self) -> tuple[dict, list]:
        """What is left fits together; returns the custom CSRs by ID and the certificates."""
        csrs = {row["id"]: row for row in self.zone.all()}
        certificates = self.certificates.all()
        assert {row["custom_csr_id"] for row in certificates} <= set(csrs), "no certificate is without its custom CSR"
        named = sorted((csr, certificate) for csr, row in csrs.items() for certificate in row["custom_certificate_ids"])
        assert named == sorted((row["custom_csr_id"], row["id"]) for row in certificates)
        orphans = self.csrd.sql("SELECT count(*) FROM custom_certificates WHERE custom_csr_id NOT IN (SELECT id FROM custom_csrs)")
        assert int(orphans[0][0]) == 0
        assert self.zone.request("GET", "/quota").result["used"] == len(csrs)
        return csrs, certificates


def chain(csr: dict, **options) -> str:
    return ROOT.issue(csr["csr"], **options) + ROOT.pem


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def pair(request, new_service):  # noqa: F811
    first = new_service(request.param)
    if request.param == "sqlite":
        yield first, first
        return
    other = OnPostgres(first.directory.with_name(first.directory.name + "-other"), "--workers", "0", env=dict(first.env))
    # Both take the tokens of the first.
    other.data_dir = first.data_dir
    other.start()
    yield first, other
    other.close()


@pytest.fixture
def racers(pair) -> Racers:
    return Racers(*pair)


def tally(record_property, what: str, outcomes: list) -> collections.Counter:
    counted = collections.Counter(outcomes)
    record_property("figures", f"{what}, {len(outcomes)} times: " + ", ".join(f"{outcome} {n}" for outcome, n in sorted(counted.items())))
    return counted


def test_two_uploads_at_once_are_both_there(racers, record_property):
    csrs = racers.custom_csrs()
    outcomes = racers.race([racers.upload(csr) for csr in csrs], [racers.upload(csr) for csr in csrs])
    tally(record_property, "upload and upload", outcomes)
    assert set(outcomes) == {((201,), (201,))}
    left, certificates = racers.check()
    assert len(certificates) == 2 * TIMES and all(len(row["custom_certificate_ids"]) == 2 for row in left.values())


def test_of_two_uploads_of_one_leaf_exactly_one_is_stored(racers, record_property):
    uploads = [racers.upload(csr) for csr in racers.custom_csrs(TIMES // 4)]
    outcomes = racers.race(uploads, uploads)
    tally(record_property, "upload and upload of the same leaf", outcomes)
    assert set(outcomes) <= {((201,), (409, 1482)), ((409, 1482), (201,))}
    left, certificates = racers.check()
    assert len(certificates) == len(uploads) and all(len(row["custom_certificate_ids"]) == 1 for row in left.values())


def test_an_upload_and_a_delete_of_its_custom_csr_never_both_succeed(racers, record_property):
    csrs = racers.custom_csrs()
    outcomes = racers.race([racers.upload(csr) for csr in csrs], [("DELETE", racers.csr_path(csr), None) for csr in csrs], even=False)
    counted = tally(record_property, "upload and delete of the custom CSR", outcomes)
    assert set(outcomes) == {((201,), (409, 1420)), ((404, 1431), (200,))} and min(counted.values()) >= ENOUGH
    left, certificates = racers.check()
    uploaded = {csr["id"] for csr, (upload, _) in zip(csrs, outcomes, strict=True) if upload == (201,)}
    assert set(left) == uploaded == {row["custom_csr_id"] for row in certificates}


def test_a_move_and_a_delete_of_the_custom_csr_it_goes_to_never_both_succeed(racers, record_property):
    csrs = racers.custom_csrs(TIMES + TIMES // MOST)
    homes, csrs = csrs[TIMES:], csrs[:TIMES]
    moves = []
    for n, csr in enumerate(csrs):
        home = homes[n % len(homes)]
        made = racers.certificates.upload(home["id"], chain(home))["id"]
        moves.append(("PATCH", f"{racers.certificates.path}/{made}", {"custom_csr_id": csr["id"], "certificate": chain(csr)}))
    outcomes = racers.race(moves, [("DELETE", racers.csr_path(csr), None) for csr in csrs], even=False)
    counted = tally(record_property, "move and delete of the custom CSR", outcomes)
    assert set(outcomes) == {((200,), (409, 1420)), ((404, 1431), (200,))} and min(counted.values()) >= ENOUGH
    racers.check()


def test_a_renewal_of_an_expired_certificate_and_a_delete_of_its_custom_csr_never_both_succeed(racers, record_property):
    csrs = racers.custom_csrs()
    made = [racers.certificates.upload(csr["id"], chain(csr, ends=SECOND))["id"] for csr in csrs]
    wait_until(lambda: racers.certificates.request("GET", params={"status": "active"}).result == [], "they expire")
    renewals = [("PATCH", f"{racers.certificates.path}/{one}", {"certificate": chain(csr)}) for one, csr in zip(made, csrs, strict=True)]
    outcomes = racers.race(renewals, [("DELETE", racers.csr_path(csr), None) for csr in csrs], even=False)
    counted = tally(record_property, "renewal and delete of the custom CSR", outcomes)
    assert ENOUGH <= counted[((200,), (409, 1420))] <= TIMES - ENOUGH
    assert set(outcomes) <= {((200,), (409, 1420)), ((404, 1481), (200,)), ((404, 1431), (200,))}
    left, certificates = racers.check()
    assert {row["status"] for row in certificates} <= {"active"} and len(left) == len(certificates)


@pytest.mark.parametrize("what", ["custom CSR", "certificate"])
def test_of_two_deletes_exactly_one_succeeds(racers, record_property, what):
    csrs = racers.custom_csrs()
    if what == "custom CSR":
        deletes = [("DELETE", racers.csr_path(csr), None) for csr in csrs]
    else:
        made = [racers.certificates.upload(csr["id"], chain(csr))["id"] for csr in csrs]
        deletes = [("DELETE", f"{racers.certificates.path}/{one}", None) for one in made]
    outcomes = racers.race(deletes, deletes)
    tally(record_property, f"delete and delete of a {what}", outcomes)
    gone = (404, 1419 if what == "custom CSR" else 1481)
    assert set(outcomes) <= {((200,), gone), (gone, (200,))}
    left, certificates = racers.check()
    assert certificates == [] and len(left) == (0 if what == "custom CSR" else TIMES)


def test_a_delete_of_a_certificate_and_one_of_its_custom_csr_end_without_a_certificate(racers, record_property):
    csrs = racers.custom_csrs()
    made = [racers.certificates.upload(csr["id"], chain(csr))["id"] for csr in csrs]
    outcomes = racers.race(
        [("DELETE", f"{racers.certificates.path}/{one}", None) for one in made],
        [("DELETE", racers.csr_path(csr), None) for csr in csrs],
    )
    tally(record_property, "delete of the certificate and of the custom CSR", outcomes)
    assert set(outcomes) <= {((200,), (200,)), ((200,), (409, 1420))}
    left, certificates = racers.check()
    assert certificates == [] and len(left) == sum(answer == (409, 1420) for _, answer in outcomes)


def test_a_quota_holds_when_rekeys_meet(racers, pair, record_property):
    csr, *_ = racers.custom_csrs(1)
    pair[0].ok("zone", "grant", racers.zone.id, "--quota", str(TIMES // 2))
    rekeys = [("POST", f"{racers.csr_path(csr)}/rekey", None)] * TIMES
    outcomes = racers.race(rekeys, rekeys)
    flat = tally(record_property, "rekey and rekey", [answer for pair in outcomes for answer in pair])
    assert set(flat) == {(201,), (403, 1465)} and flat[(201,)] == TIMES // 2 - 1
    assert racers.zone.total() == TIMES // 2
