"""Uploads as CAs, converters and people really send them, each with what is right: chain_cases.json says it, chain_cases.py makes them."""

import json
import re
from pathlib import Path

import pytest
from ca import Certificates, active
from chain_cases import CASES, Workshop, roots
from harness import Csrd
from mint import pem

EXPECTED = json.loads((Path(__file__).parent / "chain_cases.json").read_text())
# Two capitalised words run together, as programs name things.
PROGRAM_WORDS = re.compile(r"[A-Z][a-z]+[A-Z][a-z]+")
ALTERNATIVE = re.compile(r"!?/(?:[^/\\]|\\.)*/i?|\S+=.*|\S+")


class Setting:
    """A zone of a running csrd with a custom CSR of each kind."""

    def __init__(self, csrd):
        zone = csrd.tenant()
        self.certificates = Certificates(zone)
        names = ["www.acme-widgets.com", "shop.acme-widgets.com"]
        old = active(zone, sans=names)
        self.csrs = {key_type: active(zone, sans=names, key_type=key_type) for key_type in ("p256v1", "rsa2048")}
        self.workshops = {key_type: Workshop(csr["csr"], old["csr"]) for key_type, csr in self.csrs.items()}

    def upload(self, row: dict, **members):
        key_type = row.get("key_type", "p256v1")
        body = {"custom_csr_id": self.csrs[key_type]["id"], "certificate": CASES[row.get("make", row["case"])](self.workshops[key_type])}
        return self.certificates.post(params={"dry_run": "true"}, **body | members)


@pytest.fixture(scope="module")
def plain(service) -> Setting:
    return Setting(service)


@pytest.fixture(scope="module")
def anchored(tmp_path_factory) -> Setting:
    directory = tmp_path_factory.mktemp("anchored")
    anchors = directory / "roots.pem"
    anchors.write_text(pem(*(root.root() for root in roots())))
    csrd = Csrd(directory / "csrd", "--trust-anchors", str(anchors)).start()
    yield Setting(csrd)
    csrd.close()


def holds(alternative: str, answer) -> bool:
    """Whether an answer is what one of the alternatives says."""
    entries = answer.envelope["errors"] + answer.envelope["messages"]
    numbers = {entry["code"] for entry in answer.envelope["messages"]}
    for word in ALTERNATIVE.findall(alternative):
        negated, pattern = word.startswith("!"), re.fullmatch(r"!?/(.*)/(i?)", word)
        if pattern:
            found = any(re.search(pattern[1], entry["message"], re.IGNORECASE if pattern[2] else 0) for entry in entries)
            right = found != negated
        elif "=" in word:
            member, value = word.split("=", 1)
            right = answer.status < 300 and str(answer.result[member]) == value
        elif word in ("ok", "quiet", "warn"):
            right = answer.status < 300 and {"ok": True, "quiet": not numbers, "warn": bool(numbers)}[word]
        elif word == "refused":
            right = 400 <= answer.status < 500
        elif word.startswith("w"):
            right = answer.status < 300 and int(word[1:]) in numbers
        else:
            right = answer.envelope["errors"] != [] and answer.envelope["errors"][0]["code"] == int(word)
        if not right:
            return False
    return True


def check(row: dict, answer) -> None:
    assert any(holds(alternative, answer) for alternative in row["right"]), (row["right"], answer.status, answer.envelope)
    for entry in answer.envelope["errors"] + answer.envelope["messages"]:
        assert not PROGRAM_WORDS.search(entry["message"]), entry
        assert "\n" not in entry["message"], entry


def rows(kind: str):
    return [pytest.param(row, id="-".join([row["case"], *([row["key_type"]] if "key_type" in row else [])])) for row in EXPECTED[kind]]


@pytest.mark.parametrize("row", rows("plain"))
def test_what_is_sent_is_taken_for_what_it_is(plain, row):
    check(row, plain.upload(row))


@pytest.mark.parametrize("row", rows("anchored"))
def test_trust_anchors_change_no_verdict_but_that_on_the_path(anchored, row):
    check(row, anchored.upload(row))


@pytest.mark.parametrize("row", rows("forced"))
def test_a_forced_chain_is_stored_as_it_was_sent_or_refused(plain, row):
    check(row, plain.upload(row, bundle_method="force"))


@pytest.mark.parametrize("row", rows("bodies"))
def test_members_of_the_body_are_read_as_clients_write_them(plain, row):
    check(row, plain.upload(row | {"make": "usual"}, **row["body"]))
