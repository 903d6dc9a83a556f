"""Keys for tokens that an identity provider publishes by URL."""

import ipaddress
import json
import secrets
import signal
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt
import pytest
from ca import SHA256, Authority, pem
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from harness import codes, refused, run, wait_until

# Only what judges tokens is under test.
LEAN = ("--workers", "0", "--key-pool-size", "0", "--auth-failure-limit", "0")


class Key:
    """A key of a provider's, and the tokens that it signs."""

    def __init__(self, kid: str | None = None):
        self.key, self.kid = ec.generate_private_key(ec.SECP256R1()), kid or secrets.token_hex(8)

    @property
    def jwk(self) -> dict:
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return public | {"kid": self.kid, "use": "sig", "alg": "ES256"}

    def token(self, **claims) -> str:
        claims = {"sub": "s", "exp": time.time() + 3600, "zones": ["z"]} | claims
        return jwt.encode(claims, self.key, "ES256", headers={"kid": self.kid})


class Provider:
    """Publishes a JWK set, or answers as a test wants it to."""

    def __init__(self, *keys: Key, tls: ssl.SSLContext | None = None):
        self.fetches, self.is_open = 0, threading.Event()
        self.is_open.set()
        self.publish(*keys)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                provider.fetches += 1
                provider.is_open.wait(60)
                status, headers, body = provider.answers.get(self.path) or provider.answers["/jwks"]
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.scheme = "https" if tls else "http"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}/jwks"

    def publish(self, *keys: Key) -> None:
        self.answer(200, {}, json.dumps({"keys": [key.jwk for key in keys]}).encode())

    def answer(self, status: int, headers: dict, body: bytes = b"", **more) -> None:
        """What comes from now on, at `/jwks` and at other paths."""
        self.answers = {"/jwks": (status, headers, body)} | more

    def close(self) -> None:
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def new_provider():
    made = []

    def make(*keys: Key, **options) -> Provider:
        made.append(Provider(*keys, **options))
        return made[-1]

    yield make
    for provider in made:
        provider.close()


def outcome(csrd, token: str) -> list[int]:
    return codes(csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=token).envelope)


def test_a_key_that_the_provider_publishes_anew_counts_at_once_for_all_who_wait_and_costs_one_fetch(new_csrd, new_provider):
    old, new, never = Key(), Key(), Key()
    provider = new_provider(old)
    csrd = new_csrd("--jwt-jwks-url", provider.url, *LEAN).start()
    # It is remembered from now on.
    remembered = old.token()
    assert (outcome(csrd, remembered), outcome(csrd, old.token()), provider.fetches) == ([], [], 1)
    provider.publish(new)
    provider.is_open.clear()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(outcome, csrd, new.token(sub=str(number))) for number in range(8)]
        wait_until(lambda: provider.fetches == 2, "the provider is asked")
        # Whoever names no unknown key waits for nobody.
        assert outcome(csrd, remembered) == []
        provider.is_open.set()
        assert [answer.result(60) for answer in waiting] == [[]] * 8
    assert outcome(csrd, remembered) == [1002], "remembered tokens are forgotten with the key that verified them"
    for number in range(20):
        assert outcome(csrd, never.token(sub=str(number))) == [1002]
    assert provider.fetches <= 2 + (time.monotonic() - began) // 30, "anyone can name a key that is not there"


def test_without_a_first_set_nothing_is_ready_and_afterwards_the_provider_may_go_away(new_csrd, new_provider):
    key = Key()
    provider = new_provider()
    provider.answer(503, {})
    csrd = new_csrd("--jwt-jwks-url", provider.url, *LEAN).start(ready=False)
    reason = "there are no keys for tokens yet: --jwt-jwks-url: the answer has the status 503"
    wait_until(lambda: reason in csrd.request("GET", "/health/ready").envelope["errors"][0]["message"], "it says why it is not ready")
    assert csrd.is_up("/health/live")
    answer = csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=key.token())
    assert (answer.status, codes(answer.envelope), answer.headers["Retry-After"]) == (503, [1471], "1")
    # What no key could make good is refused all the same.
    for token, code in [("x", 1001), (jwt.encode({}, None, "none"), 1002), (jwt.encode({}, "s" * 32, "HS256"), 1002)]:
        assert outcome(csrd, token) == [code]
    assert codes(csrd.request("GET", "/api/v4/zones/z/custom_csrs").envelope) == [1402]
    provider.publish(key)
    wait_until(lambda: csrd.is_up("/health/ready"), "the first set is there", 60)
    assert outcome(csrd, key.token()) == []
    for broken in (b"", b"<html>", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', json.dumps({"keys": [key.jwk | {"use": "enc"}]}).encode()):
        provider.answer(200, {}, broken)
        hang_up_until(csrd, "the keys for tokens stay as they are")
        assert outcome(csrd, key.token()) == []
    provider.close()
    hang_up_until(csrd, "Connection refused")
    assert (outcome(csrd, key.token()), outcome(csrd, Key().token())) == ([], [1002])
    assert csrd.is_up("/health/ready")


def hang_up_until(csrd, text: str) -> None:
    before = csrd.log().count(text)
    csrd.process.send_signal(signal.SIGHUP)
    wait_until(lambda: csrd.log().count(text) > before, f"the log says {text}")


def test_a_key_that_the_provider_takes_back_ends_with_the_next_fetch(new_csrd, new_provider):
    gone, left = Key(), Key()
    provider = new_provider(gone, left)
    csrd = new_csrd("--jwt-jwks-url", provider.url, "--jwt-jwks-refresh", "1s", *LEAN).start()
    tokens = gone.token(), left.token()
    assert [outcome(csrd, token) for token in tokens] == [[], []]
    provider.publish(left)
    wait_until(lambda: outcome(csrd, tokens[0]) == [1002], "its token is refused", 60)
    assert outcome(csrd, tokens[1]) == []


def test_of_keys_with_one_kid_each_counts_and_so_does_one_of_another_algorithm_that_comes_later(new_csrd, new_provider):
    one, other, later = Key("same"), Key("same"), Key("later")
    provider = new_provider(one, other)
    csrd = new_csrd("--jwt-jwks-url", provider.url, *LEAN).start()
    assert (outcome(csrd, one.token()), outcome(csrd, other.token()), outcome(csrd, Key("same").token())) == ([], [], [1003])
    assert provider.fetches == 1, "their kid is known"
    provider.publish(one, later)
    assert outcome(csrd, later.token()) == []


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(authority.pem)
    return file


def server_context(authority: Authority, directory: Path) -> ssl.SSLContext:
    """For a server on 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, SHA256)
    certificate = authority.issue(pem(csr), sans=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (file := directory / "server.pem").write_text(
        certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_https_needs_a_certificate_of_a_trusted_authority_and_redirects_stay_on_the_host(new_csrd, new_provider, authority, ca_file, tmp_path):
    key = Key()
    secure = new_provider(key, tls=server_context(authority, tmp_path))
    plain = new_provider()
    plain.answer(302, {"Location": secure.url})
    untrusting = new_csrd("--jwt-jwks-url", secure.url, *LEAN, name="untrusting").start(ready=False)
    wait_until(lambda: "invalid peer certificate" in untrusting.log(), "the certificate is refused")
    # From the loopback's HTTP to HTTPS on the same host is an allowed way.
    csrd = new_csrd("--jwt-jwks-url", plain.url, "--outbound-ca-file", str(ca_file), *LEAN).start()
    assert outcome(csrd, key.token()) == []
    for location in (plain.url, "https://localhost:1/", f"//localhost:{secure.server.server_port}/jwks", "file:///etc/passwd"):
        plain.answer(302, {"Location": location})
        hang_up_until(csrd, "it redirects to another host, or not to HTTPS")
    plain.answer(302, {"Location": secure.url})
    before = secure.fetches
    secure.answer(307, {"Location": "/jwks"})
    hang_up_until(csrd, "it redirects more than 5 times")
    assert secure.fetches - before == 5
    secure.answer(200, {}, b" " * (1024 * 1024) + b"{}")
    hang_up_until(csrd, "the answer has over 1048576 bytes")
    assert outcome(csrd, key.token()) == []
    assert untrusting.request("GET", "/health/ready").status == 503


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["--jwt-jwks-url", "http://id.example/jwks"], "--jwt-jwks-url"),
        (["--jwt-jwks-url", "id.example/jwks"], "--jwt-jwks-url"),
        (["--jwt-jwks-url", "ftp://127.0.0.1/jwks"], "--jwt-jwks-url"),
        (["--jwt-jwks-url", "https://user:word@id.example/jwks"], "--jwt-jwks-url"),
        (["--jwt-jwks-url", "https://id.example/jwks", "--jwt-jwks-file", "x"], "--jwt-jwks-url"),
        (["--jwt-jwks-url", "https://id.example/jwks", "--jwt-jwks-refresh", "0s"], "--jwt-jwks-refresh"),
        (["--jwt-jwks-url", "https://id.example/jwks", "--jwt-jwks-refresh", "5"], "--jwt-jwks-refresh"),
        (["--outbound-ca-file", "/no/such/file"], "--outbound-ca-file"),
        (["--outbound-ca-file", "/dev/null"], "--outbound-ca-file"),
    ],
)
def test_bad_settings_are_named(tmp_path, arguments, setting):
    refused(run("serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "data"), *arguments), 2, setting)
    assert not (tmp_path / "data").exists()
