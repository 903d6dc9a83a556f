"""The custom certificates of a zone on both databases: lists, changes, what they protect, who may use them."""

import datetime
import json
import re

import pytest
from ca import DAY, SECOND, Authority, Certificates, active, new_csr, now, warnings
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from databases import either, new_service  # noqa: F401
from harness import codes, faults, refused, subject, wait_until

ROOT = Authority()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
UNKNOWN = "0" * 32
UNKNOWN_CSR = "01890a5d-ac96-774b-bcce-b302099a8057"
FIELDS = {
    "id", "zone_id", "status", "custom_csr_id", "hosts", "issuer", "signature", "expires_on", "uploaded_on", "modified_on", "bundle_method", "type",
    "priority", "chain", "fingerprint_sha256", "serial_number", "not_before", "renewal", "renew_after", "renewal_explanation_url",
}  # fmt: skip


@pytest.fixture
def zone(either):  # noqa: F811
    return either.tenant()


@pytest.fixture
def certificates(zone) -> Certificates:
    return Certificates(zone)


def listed(made: dict) -> dict:
    """A certificate as lists show it."""
    return {name: value for name, value in made.items() if name != "chain"}


def chain(csr: dict, **options) -> str:
    return ROOT.issue(csr["csr"], **options) + ROOT.pem


def rfc3339(text: str) -> datetime.datetime:
    assert TIME.fullmatch(text), text
    return datetime.datetime.fromisoformat(text)


def test_an_uploaded_certificate_is_shown_with_what_is_in_it(zone, certificates):
    csr = active(zone, sans=["www.acme-widgets.com", "Shop.Acme-Widgets.com"])
    leaf = ROOT.issue(csr["csr"])
    before = now()
    answer = certificates.post(custom_csr_id=csr["id"], certificate=leaf + ROOT.pem)
    assert answer.status == 201 and answer.envelope["messages"] == []
    made = answer.result
    assert set(made) == FIELDS and re.fullmatch("[0-9a-f]{32}", made["id"])
    assert answer.headers["Location"] == f"{certificates.path}/{made['id']}"
    expected = {
        "zone_id": zone.id, "status": "active", "custom_csr_id": csr["id"], "issuer": "Test CA", "signature": "ECDSAWithSHA256",
        "hosts": ["www.acme-widgets.com", "shop.acme-widgets.com"], "bundle_method": "ubiquitous", "type": "sni_custom", "priority": 0, "chain": leaf,
    }  # fmt: skip
    assert {name: made[name] for name in expected} == expected
    assert rfc3339(made["expires_on"]) == x509.load_pem_x509_certificate(leaf.encode()).not_valid_after_utc
    assert before <= rfc3339(made["uploaded_on"]) <= now() and made["modified_on"] == made["uploaded_on"]
    read = x509.load_pem_x509_certificate(leaf.encode())
    assert made["fingerprint_sha256"] == read.fingerprint(hashes.SHA256()).hex() and int(made["serial_number"], 16) == read.serial_number
    assert rfc3339(made["not_before"]) == read.not_valid_before_utc
    assert certificates.get(made["id"]) == made
    assert certificates.request("GET", f"/{made['id'].upper()}").result == made
    assert certificates.all() == [listed(made)]
    assert zone.get(csr["id"])["custom_certificate_ids"] == [made["id"]]
    assert zone.all()[0]["custom_certificate_ids"] == [made["id"]]


def test_hosts_and_issuer_have_a_common_name_to_fall_back_on(zone, certificates):
    csr, root = active(zone), Authority("Only a common name", organization=None)
    made = certificates.upload(csr["id"], root.issue(csr["csr"], sans=[]) + root.pem)
    assert (made["hosts"], made["issuer"]) == (["www.acme-widgets.com"], "Only a common name")


@pytest.mark.parametrize(
    "options",
    [
        {"sans": ["www.acme-widgets.com", "a\0b.acme-widgets.com"]}, {"sans": ["a\nb.acme-widgets.com\tx"]}, {"sans": ["x" * 300 + ".com"]},
        {"sans": [f"{n}.acme-widgets.com" for n in range(900)]}, {"ends": datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)},
        {"sans": [x509.DirectoryName(ROOT.name), x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), x509.RFC822Name("a@b.org")]},
    ],
    ids=["NUL", "newline", "long", "many", "year 9999", "other kinds"],
)  # fmt: skip
def test_whatever_a_ca_signs_is_stored_and_listed(either, zone, certificates, options):  # noqa: F811
    csr = active(zone)
    answer = certificates.post(custom_csr_id=csr["id"], certificate=chain(csr, **options))
    assert answer.status == 201, answer.content[:1000]
    made = answer.result
    assert certificates.all() == [listed(made)] and certificates.get(made["id"]) == made
    if "ends" in options:
        assert made["expires_on"] == "9999-12-31T23:59:59.000000Z" and made["status"] == "active"
    (line,) = [line for line in either.ok("certificate", "list").split("\n") if made["id"] in line]
    assert line.startswith(made["id"] + "\t") and f"custom_csr={csr['id']}" in line and line.count("\t") == 5
    assert all(character.isprintable() or character == "\t" for character in line)
    assert codes(zone.request("DELETE", f"/{csr['id']}").envelope) == [1420]


@pytest.mark.parametrize("organization", ["A\0B", "A\nB\tC", "株式会社 “🔑”", "x" * 64, "A\u202eB\u2028C\u200f"])
def test_whatever_a_ca_is_called_is_stored_and_listed(zone, certificates, organization):
    csr, root = active(zone), Authority(organization=organization)
    answer = certificates.post(custom_csr_id=csr["id"], certificate=root.issue(csr["csr"]) + root.pem)
    assert answer.status == 201, answer.content[:1000]
    assert certificates.all() == [listed(answer.result)]
    # What a terminal or a line reader would act on is shown as U+FFFD.
    assert answer.result["issuer"] == "".join(c if c.isprintable() else "\ufffd" for c in organization)


# Lists


def test_certificates_are_listed_newest_first_in_pages_and_by_status(zone, certificates):
    csrs = [active(zone, name=str(n)) for n in range(2)]
    made = [certificates.upload(csrs[n % 2]["id"], chain(csrs[n % 2]))["id"] for n in range(11)]
    brief = certificates.upload(csrs[0]["id"], chain(csrs[0], ends=2 * SECOND))["id"]
    wait_until(lambda: certificates.get(brief)["status"] == "expired", "it expires")

    def listed(**query):
        answer = certificates.request("GET", params=query)
        assert answer.status == 200, answer
        return [row["id"] for row in answer.result], answer.envelope["result_info"]

    def info(page, per_page, count, total, pages):
        return {"page": page, "per_page": per_page, "count": count, "total_count": total, "total_pages": pages}

    newest_first = [brief, *made[::-1]]
    assert listed() == (newest_first, info(1, 20, 12, 12, 1))
    assert listed(per_page=5, page=2) == (newest_first[5:10], info(2, 5, 5, 12, 3))
    assert listed(per_page="5.0", page="3.0") == (newest_first[10:], info(3, 5, 2, 12, 3))
    assert listed(page=9) == ([], info(9, 20, 0, 12, 1))
    assert listed(status="active", per_page=5, page=3) == (made[:1], info(3, 5, 1, 11, 3))
    assert listed(status="expired") == ([brief], info(1, 20, 1, 1, 1))
    assert listed(status="active", match="all")[1]["total_count"] == 11
    for status in ("deleted", "pending", "initializing"):
        assert listed(status=status) == ([], info(1, 20, 0, 0, 0))
    for wrong in ({"status": "revoked"}, {"status": "Active"}, {"page": 0}, {"page": "x"}, {"page": 1.5}, {"per_page": 4}, {"per_page": 51}):
        answer = certificates.request("GET", params=wrong)
        assert codes(answer.envelope) == [1464] and answer.status == 400
        assert next(iter(wrong)) in answer.envelope["errors"][0]["message"]
    first, second = (zone.get(csr["id"])["custom_certificate_ids"] for csr in csrs)
    assert (first, second) == ([*made[::2], brief], made[1::2]), "oldest first"


def test_certificates_are_listed_by_custom_csr_host_and_expiry(zone, certificates):
    one, other = active(zone, sans=["www.acme-widgets.com"]), active(zone, sans=["Shop.acme-widgets.com", "a_b.acme-widgets.com"])
    first = certificates.upload(one["id"], chain(one, ends=20 * DAY))["id"]
    second = certificates.upload(other["id"], chain(other, ends=40 * DAY))["id"]

    def found(**query):
        return [row["id"] for row in certificates.all(**query)]

    assert found(custom_csr_id=one["id"]) == [first] and found(custom_csr_id=UNKNOWN_CSR) == []
    assert found(host="WWW.acme-widgets.com") == [first] and found(host="a_b.acme-widgets.com") == [second] == found(host="shop.acme-widgets.com")
    assert found(host="acme-widgets.com") == found(host="aab.acme-widgets.com") == found(host='"') == found(host="%") == []
    in_30_days = (now() + 30 * DAY).isoformat()
    assert found(expires_before=in_30_days) == [first] and found(expires_before=in_30_days, custom_csr_id=other["id"]) == []
    for wrong in ({"custom_csr_id": "x"}, {"expires_before": "tomorrow"}, {"host": "x" * 256}):
        answer = certificates.request("GET", params=wrong)
        assert codes(answer.envelope) == [1464] and next(iter(wrong)) in answer.envelope["errors"][0]["message"]


def test_a_row_that_an_older_version_wrote_is_shown_with_what_is_in_its_leaf(either, zone, certificates):  # noqa: F811
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr), priority=7)
    assert made["priority"] == 7
    other = certificates.upload(csr["id"], chain(csr))
    # It knows none of the newer columns, on insertion and on renewal.
    either.sql(
        f"UPDATE custom_certificates SET not_before = NULL, serial_number = NULL, fingerprint_sha256 = NULL, described_at = NULL WHERE id = '{made['id']}'"
    )
    either.sql(f"UPDATE custom_certificates SET chain_pem = '{made['chain']}', modified_at = modified_at + 1 WHERE id = '{other['id']}'")
    assert certificates.get(made["id"]) == made
    again = certificates.get(other["id"])
    for name in ("serial_number", "fingerprint_sha256", "not_before", "chain"):
        assert again[name] == made[name], name
    assert certificates.all() == [listed(again), listed(made)]
    edited = certificates.patch(made["id"], priority=0).result
    assert {name for name in FIELDS if edited[name] != made[name]} == {"priority", "modified_on"}


# Changes


def test_a_dry_run_runs_the_checks_and_stores_nothing(zone, certificates):
    csr = active(zone)
    body = {"custom_csr_id": csr["id"], "certificate": ROOT.issue(csr["csr"])}
    answer = certificates.post(**body, params={"dry_run": "true"})
    assert answer.status == 200 and warnings(answer)[0][0] == 2003 and "Location" not in answer.headers
    assert answer.result["id"] is None and answer.result["custom_csr_id"] == csr["id"]
    assert codes(certificates.post(**body | {"certificate": ROOT.issue(new_csr())}, params={"dry_run": "true"}).envelope) == [1429]
    for odd in ("perhaps", "", "yes", "1", "TRUE", ["true", "false"], ["false", ""]):
        answer = certificates.post(**body, params={"dry_run": odd})
        assert codes(answer.envelope) == [1464] and "dry_run" in answer.envelope["errors"][0]["message"], (odd, answer)
    assert certificates.all() == [] and zone.get(csr["id"])["custom_certificate_ids"] == []
    assert certificates.post(**body, params={"dry_run": "false"}).status == 201
    (made,) = certificates.all()
    renewed = certificates.patch(made["id"], bundle_method="force", certificate=chain(csr, ends=20 * DAY), params={"dry_run": "true"})
    assert renewed.status == 200 and renewed.result["bundle_method"] == "force" and renewed.result["expires_on"] != made["expires_on"]
    for unchanged in ({}, {"bundle_method": made["bundle_method"]}):
        assert certificates.patch(made["id"], **unchanged, params={"dry_run": "true"}).result["id"] is None
    assert renewed.result["id"] is None
    for odd in ("perhaps", ""):
        assert codes(certificates.patch(made["id"], bundle_method="force", params={"dry_run": odd}).envelope) == [1464]
    assert certificates.all() == [made]


def test_a_renewed_certificate_replaces_the_old_one_under_the_same_id(zone, certificates):
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr, ends=20 * DAY))
    answer = certificates.patch(made["id"], certificate=ROOT.issue(csr["csr"], begins=-90 * DAY, ends=10 * DAY, sans=["b.org"]))
    assert answer.status == 200 and {code for code, _ in warnings(answer)} == {2002, 2003, 2004}
    renewed = answer.result
    changed = {name for name in FIELDS if renewed[name] != made[name]}
    assert changed == {"expires_on", "modified_on", "hosts", "chain", "fingerprint_sha256", "serial_number", "not_before"} and renewed["hosts"] == ["b.org"]
    assert rfc3339(renewed["expires_on"]) - rfc3339(made["expires_on"]) < -9 * DAY
    assert rfc3339(renewed["modified_on"]) > rfc3339(made["modified_on"])
    assert certificates.get(made["id"]) == renewed and certificates.all() == [listed(renewed)]
    assert zone.get(csr["id"])["custom_certificate_ids"] == [made["id"]]


def test_without_a_certificate_a_change_is_one_of_the_bundle_method_alone(zone, certificates):
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr), bundle_method="force")
    assert made["bundle_method"] == "force"
    answer = certificates.patch(made["id"], bundle_method="optimal")
    assert answer.status == 200 and answer.envelope["messages"] == []
    assert {name for name in FIELDS if answer.result[name] != made[name]} == {"bundle_method", "modified_on"}
    assert answer.result["bundle_method"] == "optimal"
    assert certificates.patch(made["id"], certificate=chain(csr)).result["bundle_method"] == "optimal"
    for nothing in ({}, {"custom_csr_id": csr["id"]}, {"bundle_method": None}, {"certificate": None, "custom_csr_id": None}):
        answer = certificates.patch(made["id"], **nothing)
        assert answer.status == 200 and answer.result["bundle_method"] == "optimal" and answer.result["custom_csr_id"] == csr["id"]
    assert codes(certificates.patch(made["id"], bundle_method="best").envelope) == [1400]


def test_an_expired_certificate_can_be_renewed(zone, certificates):
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr, ends=1 * SECOND))["id"]
    wait_until(lambda: certificates.get(made)["status"] == "expired", "it expires")
    assert certificates.patch(made, certificate=chain(csr)).result["status"] == "active"
    assert codes(zone.request("DELETE", f"/{csr['id']}").envelope) == [1420]


def test_a_change_can_move_to_another_custom_csr_which_frees_the_old_one(zone, certificates):
    old, new = active(zone), active(zone)
    made = certificates.upload(old["id"], chain(old))["id"]
    answer = certificates.patch(made, custom_csr_id=new["id"], certificate=chain(new))
    assert answer.status == 200 and (answer.result["id"], answer.result["custom_csr_id"]) == (made, new["id"])
    assert [zone.get(csr["id"])["custom_certificate_ids"] for csr in (old, new)] == [[], [made]]
    assert zone.request("DELETE", f"/{old['id']}").status == 200
    assert codes(zone.request("DELETE", f"/{new['id']}").envelope) == [1420]
    assert codes(certificates.patch(made, custom_csr_id=old["id"], certificate=chain(old)).envelope) == [1431]


# What is protected


def test_a_custom_csr_is_protected_until_its_last_certificate_is_deleted(zone, certificates):
    csr = active(zone)
    made = [certificates.upload(csr["id"], chain(csr))["id"] for _ in range(2)]
    for certificate_id in made:
        answer = zone.request("DELETE", f"/{csr['id']}")
        assert (codes(answer.envelope), answer.status, answer.headers["x-should-retry"]) == ([1420], 409, "false")
        answer = certificates.request("DELETE", f"/{certificate_id}")
        assert (answer.status, answer.result) == (200, {"id": certificate_id})
        for method in ("GET", "PATCH", "DELETE"):
            answer = certificates.request(method, f"/{certificate_id}", json={} if method == "PATCH" else None)
            assert codes(answer.envelope) == [1481] and answer.status == 404
    assert zone.get(csr["id"])["custom_certificate_ids"] == []
    assert zone.request("DELETE", f"/{csr['id']}").status == 200


def test_a_certificate_protects_its_custom_csr_to_the_end_of_its_last_second(zone, certificates):
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr, ends=3 * SECOND))
    end = rfc3339(made["expires_on"]) + SECOND
    seen = set()

    def is_over():
        before = now()
        status = certificates.get(made["id"])["status"]
        listed = [row["status"] for row in certificates.all()]
        deleted = codes(zone.request("DELETE", f"/{csr['id']}").envelope) if status == "active" else None
        after = now()
        assert status == "expired" or before < end, "it is over"
        assert status == "active" or after >= end, "it is not over yet"
        if after < end:
            assert (status, listed, deleted) == ("active", ["active"], [1420])
            seen.add("protected")
        return status == "expired" or deleted == []

    wait_until(is_over, "it expires")
    assert seen == {"protected"}
    # Where the answer to DELETE was 200, the last second ended just before it.
    if zone.request("GET", f"/{csr['id']}").status == 200:
        assert zone.get(csr["id"])["custom_certificate_ids"] == [made["id"]]
        assert zone.request("DELETE", f"/{csr['id']}").status == 200
    assert now() >= end
    # It goes with its custom CSR.
    assert codes(certificates.request("GET", f"/{made['id']}").envelope) == [1481] and certificates.all() == []
    assert zone.total() == 0


def test_one_active_certificate_protects_among_expired_ones(zone, certificates):
    csr = active(zone)
    brief = certificates.upload(csr["id"], chain(csr, ends=1 * SECOND))["id"]
    kept = certificates.upload(csr["id"], chain(csr))["id"]
    wait_until(lambda: certificates.get(brief)["status"] == "expired", "it expires")
    assert codes(zone.request("DELETE", f"/{csr['id']}").envelope) == [1420]
    assert {row["id"] for row in certificates.all()} == {brief, kept}


# Who may


def test_an_accounts_custom_csr_is_used_by_its_zones_only(either):  # noqa: F811
    account, zone, other = either.tenant("account"), either.tenant(), either.tenant()
    csr = active(account)
    for tenant in (zone, other):
        assert codes(Certificates(tenant).post(custom_csr_id=csr["id"], certificate=chain(csr)).envelope) == [1431]
    either.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "5")
    made = Certificates(zone).upload(csr["id"], chain(csr))
    assert (made["zone_id"], made["custom_csr_id"]) == (zone.id, csr["id"])
    assert codes(Certificates(other).post(custom_csr_id=csr["id"], certificate=chain(csr)).envelope) == [1431]
    assert codes(account.request("DELETE", f"/{csr['id']}").envelope) == [1420]
    # The account sees it, but not by way of the zone.
    assert account.get(csr["id"])["custom_certificate_ids"] == [made["id"]]
    assert codes(Certificates(zone).request("GET", f"/{made['id']}", token=account.token).envelope) == [1404]
    assert Certificates(account).all() == [listed(made)]
    # The zone reads and changes its certificate, but not the account's custom CSR.
    assert codes(zone.request("GET", f"/{csr['id']}").envelope) == [1419]
    assert Certificates(zone).patch(made["id"], certificate=chain(csr)).status == 200
    # A zone that went to another account keeps its certificate, and gets no new one for that custom CSR.
    either.ok("zone", "grant", zone.id, "--account", "another", "--quota", "5")
    assert codes(Certificates(zone).post(custom_csr_id=csr["id"], certificate=chain(csr)).envelope) == [1431]
    assert Certificates(zone).get(made["id"])["status"] == "active"
    assert Certificates(zone).request("DELETE", f"/{made['id']}").status == 200
    assert account.request("DELETE", f"/{csr['id']}").status == 200


def test_an_account_sees_and_deletes_the_certificates_that_use_its_custom_csrs(either):  # noqa: F811
    account, stranger, zone, other = either.tenant("account"), either.tenant("account"), either.tenant(), either.tenant()
    for tenant in (zone, other):
        either.ok("zone", "grant", tenant.id, "--account", account.id, "--quota", "5")
    csrs, own = [active(account) for _ in range(2)], active(zone)
    of_zone, of_other = (Certificates(tenant).upload(csr["id"], chain(csr)) for tenant, csr in zip((zone, other), csrs, strict=True))
    hidden = Certificates(zone).upload(own["id"], chain(own))["id"]
    view = Certificates(account)
    assert view.all() == [listed(of_other), listed(of_zone)] and [row["zone_id"] for row in view.all()] == [other.id, zone.id]
    assert view.all(status="expired") == [] and view.all(status="active") == [listed(of_other), listed(of_zone)]
    paged = view.request("GET", params={"page": 2, "per_page": 5}).envelope
    assert (paged["result"], paged["result_info"]["total_count"]) == ([], 2)
    assert view.get(of_zone["id"].upper()) == of_zone
    # Nothing else: not what uses the zone's own custom CSR, nor for another account, nor one that never was.
    for viewer, certificate_id in ((view, hidden), (view, UNKNOWN), (Certificates(stranger), of_zone["id"])):
        for method in ("GET", "DELETE"):
            assert codes(viewer.request(method, f"/{certificate_id}").envelope) == [1481]
    assert Certificates(stranger).all() == []
    for suffix in ("x", UNKNOWN + "0"):
        assert {tuple(codes(view.request(method, f"/{suffix}").envelope)) for method in ("GET", "DELETE")} == {(1480,)}
    # A token for its zones alone reaches none of it, and one for reading changes nothing.
    reader = either.token("--account", account.id, "--scope", "custom_certificates:read")
    for token, refused in ((zone.token, ("GET", "DELETE")), (reader, ("DELETE",))):
        for method in refused:
            assert codes(view.request(method, f"/{of_zone['id']}", token=token).envelope) == [1404]
    assert view.request("GET", token=reader).result == [listed(of_other), listed(of_zone)]
    # They are stored and changed in zones.
    assert codes(view.post(custom_csr_id=csrs[0]["id"], certificate=chain(csrs[0])).envelope) == [7001]
    assert codes(view.patch(of_zone["id"], bundle_method="force").envelope) == [7001]

    # The zone cannot hold the custom CSR, whatever became of its own rights.
    either.ok("zone", "revoke", zone.id)
    named = either.token("--account", account.id, "--subject", "the account's own")
    answer = view.request("DELETE", f"/{of_zone['id']}", token=named)
    assert (answer.status, answer.result) == (200, {"id": of_zone["id"]})
    assert codes(view.request("DELETE", f"/{of_zone['id']}").envelope) == [1481]
    assert [row["id"] for row in Certificates(zone).all()] == [hidden] and view.all() == [listed(of_other)]
    assert account.request("DELETE", f"/{csrs[0]['id']}").status == 200
    # The entry is the zone's, and says who it was.
    entries = [json.loads(line) for line in either.ok("audit", "--zone", zone.id).splitlines()]
    (entry,) = (entry for entry in entries if entry["action"] == "delete")
    assert (entry["resource"], entry["who"], entry["via"]) == (f"custom_certificate/{of_zone['id']}", "the account's own", "api")
    assert (entry["zone"], entry["request_id"]) == (zone.id, answer.headers["X-Request-Id"])


def test_a_custom_csr_of_a_revoked_account_gets_no_certificate(either):  # noqa: F811
    account, zone = either.tenant("account"), either.tenant()
    either.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "5")
    csr, own = active(account), active(zone)
    made, moving = (Certificates(zone).upload(one["id"], chain(one))["id"] for one in (csr, own))
    either.ok("account", "revoke", account.id)
    for params in ({}, {"dry_run": "true"}):
        assert codes(Certificates(zone).post(custom_csr_id=csr["id"], certificate=chain(csr), params=params).envelope) == [1431]
        for one in (made, moving):
            answer = Certificates(zone).patch(one, custom_csr_id=csr["id"], certificate=chain(csr), params=params)
            assert (answer.status, codes(answer.envelope)) == (404, [1431])
    assert Certificates(zone).get(made)["status"] == "active" and Certificates(zone).patch(moving, certificate=chain(own)).status == 200
    either.ok("account", "grant", account.id)
    assert Certificates(zone).patch(made, certificate=chain(csr)).status == 200


def test_a_revoked_zone_renews_and_exports_what_it_has(either, tmp_path):  # noqa: F811
    account, zone = either.tenant("account"), either.tenant()
    either.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "5")
    theirs, others, own = active(account), active(account), active(zone)
    certificates = Certificates(zone)
    made = {one["id"]: certificates.upload(one["id"], chain(one))["id"] for one in (theirs, own)}
    either.ok("zone", "revoke", zone.id)
    both = ({"dry_run": "true"}, {})
    for csr in (theirs, own):
        one = made[csr["id"]]
        for params in both:
            assert certificates.patch(one, certificate=chain(csr), params=params).status == 200
            assert certificates.patch(one, custom_csr_id=csr["id"], certificate=chain(csr), params=params).status == 200
        either.ok("certificate", "export", one, "--out", str(tmp_path / one))
    # What would be new is not: another custom CSR of the account.
    for params in both:
        for one in made.values():
            answer = certificates.patch(one, custom_csr_id=others["id"], certificate=chain(others), params=params)
            assert (answer.status, faults(answer.envelope)) == (404, [(1431, "/custom_csr_id")])

    # The zone comes back without the account, whose custom CSR it loses.
    either.ok("zone", "grant", zone.id, "--quota", "5")
    one = made[theirs["id"]]
    for params in both:
        answer = certificates.patch(one, certificate=chain(theirs), params=params)
        assert (answer.status, faults(answer.envelope)) == (404, [(1431, "/certificate")])
        assert "account" in answer.envelope["errors"][0]["message"]
        assert certificates.patch(made[own["id"]], certificate=chain(own), params=params).status == 200
    refused(either.run("certificate", "export", one, "--out", str(tmp_path / "lost")), None, "account")
    assert not (tmp_path / "lost").exists()
    assert certificates.patch(one, priority=5).result["priority"] == 5
    # It moves to one that the zone may use, and is its own again.
    assert certificates.patch(one, custom_csr_id=own["id"], certificate=chain(own)).status == 200


# How many


def check_conflict(answer, code: int, pointer: str, word: str) -> None:
    """A conflict, which goes on being one."""
    (error,) = answer.envelope["errors"]
    assert (answer.status, error["code"], error["source"]) == (409, code, {"pointer": pointer})
    assert word in error["message"] and answer.headers["x-should-retry"] == "false"


def test_a_leaf_is_stored_once(either):  # noqa: F811
    account, zone, other = either.tenant("account"), either.tenant(), either.tenant()
    for tenant in (zone, other):
        either.ok("zone", "grant", tenant.id, "--account", account.id)
    csr, certificates = active(account), Certificates(zone)
    leaf, another = ROOT.issue(csr["csr"]), ROOT.issue(csr["csr"])
    first, second = (certificates.upload(csr["id"], one)["id"] for one in (leaf, another))
    for params in ({}, {"dry_run": "true"}):
        # The leaf counts, however it is written, and whatever follows it.
        for again in (leaf, leaf + ROOT.pem, "text\r\n" + leaf.replace("\n", "\r\n")):
            check_conflict(certificates.post(custom_csr_id=csr["id"], certificate=again, params=params), 1482, "/certificate", first)
            check_conflict(certificates.patch(second, certificate=again, params=params), 1482, "/certificate", first)
        assert certificates.patch(first, certificate=leaf + ROOT.pem, params=params).status == 200
        assert certificates.patch(second, certificate=another, bundle_method="force", params=params).status == 200
    # A fault of the certificate comes first.
    assert codes(certificates.post(custom_csr_id=csr["id"], certificate=leaf + ROOT.pem + new_csr()).envelope) == [1426]
    assert codes(certificates.post(custom_csr_id=csr["id"], certificate=leaf + Authority().pem).envelope) == [1477]
    Certificates(other).upload(csr["id"], leaf)
    assert len(certificates.all()) == 2
    assert certificates.request("DELETE", f"/{first}").status == 200
    assert certificates.upload(csr["id"], leaf)["id"] != first


def test_a_custom_csr_has_at_most_twenty_certificates(either):  # noqa: F811
    account, zone, other = either.tenant("account"), either.tenant(), either.tenant()
    for tenant in (zone, other):
        either.ok("zone", "grant", tenant.id, "--account", account.id)
    csr, spare = active(account), active(account)
    leaf = ROOT.issue(csr["csr"])
    made = [Certificates((zone, other)[n % 2]).upload(csr["id"], leaf if n == 0 else ROOT.issue(csr["csr"]))["id"] for n in range(20)]
    certificates = Certificates(zone)
    elsewhere = certificates.upload(spare["id"], chain(spare))["id"]
    for params in ({}, {"dry_run": "true"}):
        for full in (
            certificates.post(custom_csr_id=csr["id"], certificate=chain(csr), params=params),
            certificates.patch(elsewhere, custom_csr_id=csr["id"], certificate=chain(csr), params=params),
        ):
            check_conflict(full, 1483, "/custom_csr_id", "20")
        # That it is there already comes first; then one that stays is not one more.
        check_conflict(certificates.post(custom_csr_id=csr["id"], certificate=leaf, params=params), 1482, "/certificate", made[0])
        assert certificates.patch(made[2], certificate=chain(csr), params=params).status == 200
        assert certificates.patch(made[2], bundle_method="force", params=params).status == 200
    assert set(account.get(csr["id"])["custom_certificate_ids"]) == set(made)
    assert certificates.patch(made[0], custom_csr_id=spare["id"], certificate=chain(spare)).status == 200
    assert certificates.patch(elsewhere, custom_csr_id=csr["id"], certificate=chain(csr)).status == 200
    check_conflict(Certificates(other).post(custom_csr_id=csr["id"], certificate=chain(csr)), 1483, "/custom_csr_id", "20")
    assert Certificates(other).request("DELETE", f"/{made[1]}").status == 200
    Certificates(other).upload(csr["id"], chain(csr))


def test_another_tenants_certificates_and_custom_csrs_are_not_found(either, zone, certificates):  # noqa: F811
    other = either.tenant()
    csr, theirs = active(zone), active(other)
    made = Certificates(other).upload(theirs["id"], chain(theirs))["id"]
    both = either.token("--zone", zone.id, other.id)
    for method in ("GET", "PATCH", "DELETE"):
        body = {"json": {"bundle_method": "force"}} if method == "PATCH" else {}
        assert codes(certificates.request(method, f"/{made}", token=both, **body).envelope) == [1481]
        assert codes(Certificates(other).request(method, f"/{made}", token=zone.token, **body).envelope) == [1404]
    assert codes(certificates.request("POST", token=both, json={"custom_csr_id": theirs["id"], "certificate": chain(theirs)}).envelope) == [1431]
    own = certificates.upload(csr["id"], chain(csr))["id"]
    assert codes(certificates.patch(own, custom_csr_id=theirs["id"], certificate=chain(theirs)).envelope) == [1431]
    assert [row["id"] for row in certificates.all()] == [own]
    assert Certificates(other).get(made)["bundle_method"] == "ubiquitous"


def test_each_scope_of_a_token_reaches_what_it_names(either, zone, certificates):  # noqa: F811
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr))["id"]
    body = {"custom_csr_id": csr["id"], "certificate": chain(csr)}
    allowed = {
        "custom_certificates:read": {"read"}, "custom_certificates:write": {"read", "write"}, "custom_csrs:write": {"csr read", "csr write"},
        "custom_csrs:read": {"csr read"}, "custom_csrs:read custom_certificates:read": {"csr read", "read"}, "email": set(),
    }  # fmt: skip
    for scope, words in allowed.items():
        token = either.token("--zone", zone.id, "--scope", scope)
        for word, answer in {
            "read": certificates.request("GET", token=token),
            "write": certificates.request("POST", token=token, json=body),
            "csr read": zone.request("GET", "/quota", token=token),
            "csr write": zone.request("PATCH", f"/{csr['id']}", token=token, json={}),
        }.items():
            assert (codes(answer.envelope) == []) if word in words else (codes(answer.envelope) == [1404]), (scope, word, answer)
        for word, answer in {
            "read": certificates.request("GET", f"/{made}", token=token),
            "write": certificates.request("PATCH", f"/{made}", token=token, json={}),
            "csr write": zone.request("POST", f"/{csr['id']}/rekey", token=token),
        }.items():
            assert (codes(answer.envelope) == []) if word in words else (codes(answer.envelope) == [1404]), (scope, word, answer)
        assert codes(certificates.request("DELETE", f"/{UNKNOWN}", token=token).envelope) == ([1481] if "write" in words else [1404])
    for method in ("GET", "POST"):
        answer = certificates.request(method, token=None)
        assert codes(answer.envelope) == [1402]


def test_a_zone_that_is_not_granted_uploads_nothing_but_keeps_what_it_has(either, zone, certificates):  # noqa: F811
    csr = active(zone)
    made = certificates.upload(csr["id"], chain(csr))["id"]
    # No quota is needed.
    either.ok("zone", "grant", zone.id)
    certificates.upload(csr["id"], chain(csr))
    either.ok("zone", "revoke", zone.id)
    # Before anything about the body.
    for body in ({}, {"private_key": "x"}, {"custom_csr_id": csr["id"], "certificate": chain(csr)}):
        assert codes(certificates.post(**body).envelope) == [1404]
    assert codes(certificates.post(custom_csr_id=csr["id"], certificate=chain(csr), params={"dry_run": "true"}).envelope) == [1404]
    assert len(certificates.all()) == 2
    assert certificates.patch(made, certificate=chain(csr)).status == 200
    assert certificates.request("DELETE", f"/{made}").status == 200


def test_an_upload_that_is_sent_again_with_its_idempotency_key_stores_nothing_more(zone, certificates):
    csr = active(zone)
    body = {"custom_csr_id": csr["id"], "certificate": chain(csr)}

    def post(key, dry_run=None, **changed):
        return certificates.request("POST", json=body | changed, headers={"Idempotency-Key": key}, params=dry_run and {"dry_run": dry_run})

    def failure(answer):
        return answer.status, codes(answer.envelope)

    checked = post("k", dry_run="true")
    assert checked.status == 200 and "Idempotent-Replayed" not in checked.headers, "a dry run uses no key"
    first = post("k")
    assert first.status == 201 and "Idempotent-Replayed" not in first.headers
    changed = certificates.patch(first.result["id"], priority=7).result
    again = post("k")
    assert again.status == 201 and again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"] and again.result == changed, "as it is now"
    assert failure(post("k", priority=8)) == (422, [1466])
    assert failure(zone.request("POST", json=subject(), headers={"Idempotency-Key": "k"})) == (422, [1466])
    assert failure(post("another")) == (409, [1482])
    assert failure(post("k" * 256)) == (400, [1464])
    assert len(certificates.all()) == 1
    assert certificates.request("DELETE", f"/{first.result['id']}").status == 200
    assert failure(post("k")) == (404, [1481]), "nothing is stored a second time"
    assert post("another").status == 201, "a refusal had left its key free"
