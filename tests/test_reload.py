"""Keys for tokens that are replaced while the service runs, and signals that are no end."""

import json
import os
import signal
import threading
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import codes, subject, wait_until


@pytest.fixture
def keyed(new_csrd, tmp_path):
    """A csrd whose tokens a file verifies, the file, and what makes tokens."""
    file = tmp_path / "secret"

    def put(secret: str) -> None:
        # As a rotation does it: a new file in the place of the old one.
        (new := tmp_path / "new").touch(0o600)
        new.write_text(secret)
        new.rename(file)

    def token(secret: str) -> str:
        return jwt.encode({"sub": "s", "exp": time.time() + 600, "zones": ["z"]}, secret, "HS256")

    put("a" * 40)
    csrd = new_csrd("--jwt-secret-file", str(file), "--workers", "1", "--key-pool-size", "0", "--auth-failure-limit", "0").start()
    csrd.ok("zone", "grant", "z", "--quota", "100")
    return csrd, file, put, token


def outcome(csrd, token: str) -> list[int]:
    return codes(csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=token).envelope)


@pytest.mark.parametrize("hangup", [False, True])
def test_a_file_that_was_replaced_counts_and_tokens_of_the_old_keys_are_refused_remembered_or_not(keyed, hangup):
    csrd, _, put, token = keyed
    old, new = token("a" * 40), token("b" * 40)
    assert (outcome(csrd, old), outcome(csrd, new)) == ([], [1003])
    put("b" * 40)
    if hangup:
        csrd.process.send_signal(signal.SIGHUP)
    wait_until(lambda: outcome(csrd, new) == [], "the new key counts", 60)
    assert outcome(csrd, old) == [1003]


def test_a_hangup_does_not_wait_for_the_next_look_at_the_file(keyed):
    csrd, _, put, token = keyed
    begin = time.monotonic()
    for letter in "bcdef":
        put(letter * 40)
        csrd.process.send_signal(signal.SIGHUP)
        wait_until(lambda: outcome(csrd, token(letter * 40)) == [], "the new key counts", 60)  # noqa: B023
    # The looks are five seconds apart: five of them take twenty at the least.
    assert time.monotonic() - begin < 18


def test_a_broken_file_and_one_that_went_away_are_told_once_and_the_old_keys_stay(keyed):
    csrd, file, put, token = keyed
    for broken in (lambda: put("short"), file.unlink, lambda: os.mkfifo(file, 0o600)):
        broken()
        before = csrd.log().count("the keys for tokens stay as they are")
        csrd.process.send_signal(signal.SIGHUP)
        wait_until(lambda: csrd.log().count("the keys for tokens stay as they are") > before, "the log says so")  # noqa: B023
        assert outcome(csrd, token("a" * 40)) == []
    time.sleep(6)
    assert csrd.log().count("the keys for tokens stay as they are") <= 6, "not at every look"
    file.unlink()
    put("b" * 40)
    wait_until(lambda: outcome(csrd, token("b" * 40)) == [], "the new key counts", 60)


class Pair:
    """A key pair, as a JWK set and as PEM, and the tokens that it signs."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = self.key.public_key()
        self.jwks = json.dumps({"keys": [jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)]})
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.token = jwt.encode({"sub": "s", "exp": time.time() + 3600, "zones": ["z"]}, self.key, "ES256")


def test_a_file_behind_links_that_kubernetes_swaps_is_loaded_anew(new_csrd, tmp_path):
    pairs = Pair(), Pair()

    def mount(number: int) -> None:
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}/jwks.json").write_text(pairs[number].jwks)
        (tmp_path / "..new").symlink_to(f"..{number}")
        (tmp_path / "..new").rename(tmp_path / "..data")

    mount(0)
    (file := tmp_path / "jwks.json").symlink_to("..data/jwks.json")
    csrd = new_csrd("--jwt-jwks-file", str(file), "--workers", "0", "--key-pool-size", "0", "--auth-failure-limit", "0").start()
    assert [outcome(csrd, pair.token) for pair in pairs] == [[], [1003]]
    mount(1)
    wait_until(lambda: [outcome(csrd, pair.token) for pair in pairs] == [[1003], []], "the new key counts, and it alone", 60)


def test_a_file_that_is_written_in_place_counts_once_it_is_whole(new_csrd, tmp_path):
    old, new = Pair(), Pair()
    (file := tmp_path / "key.pem").write_text(old.pem)
    csrd = new_csrd("--jwt-public-key-file", str(file), "--workers", "0", "--key-pool-size", "0", "--auth-failure-limit", "0").start()
    for half in (0, 1, 40, len(new.pem) - 2):
        file.write_text(new.pem[:half])
        before = csrd.log().count("the keys for tokens stay as they are")
        csrd.process.send_signal(signal.SIGHUP)
        wait_until(lambda: csrd.log().count("the keys for tokens stay as they are") > before, "the log says so")  # noqa: B023
        assert [outcome(csrd, pair.token) for pair in (old, new)] == [[], [1003]]
    file.write_text(new.pem)
    csrd.process.send_signal(signal.SIGHUP)
    wait_until(lambda: [outcome(csrd, pair.token) for pair in (old, new)] == [[1003], []], "the new key counts, and it alone", 60)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE])
def test_a_signal_that_is_no_end_cuts_no_request_that_waits(keyed, number):
    csrd, _, _, token = keyed
    answers = []

    def post() -> None:
        answers.append(
            csrd.request(
                "POST", "/api/v4/zones/z/custom_csrs", token=token("a" * 40), json=subject(key_type="rsa2048"), headers={"Prefer": "wait=30"}
            )
        )

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        csrd.process.send_signal(number)
        time.sleep(0.02)
    for thread in threads:
        thread.join(60)
    assert [(answer.status, answer.result["status"]) for answer in answers] == [(201, "active")] * 4
    assert csrd.check_runs()


def test_sigquit_ends_the_process_as_sigterm_does(keyed):
    csrd = keyed[0]
    csrd.process.send_signal(signal.SIGQUIT)
    assert csrd.wait(60) == 0
