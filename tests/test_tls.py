"""HTTPS: versions, protocols, HTTP/2, certificates that change while the service runs."""

import json
import os
import signal
import socket
import ssl
import subprocess
from contextlib import suppress

import httpx
import pytest
import tls
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from harness import Csrd, check_envelope, read_response, refused, run, subject, wait_until

GET = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    """One running csrd that serves HTTPS."""
    directory = tmp_path_factory.mktemp("tls")
    pair = tls.Pair(directory / "pair")
    csrd = Csrd(directory, *pair.arguments(), "--key-pool-size", "0", tls=pair.trusted()).start()
    csrd.pair = pair
    yield csrd
    csrd.close()


def unchecked(**options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


def test_the_log_and_the_welcome_name_https_addresses(secure):
    assert f"listening on https://{secure.address}" in secure.log()
    wait_until(lambda: f"https://{secure.address}/docs" in secure.stdout_path.read_text(), "the welcome")
    assert "http://" not in secure.stdout_path.read_text()


@pytest.mark.parametrize(
    ("offered", "taken"), [((), None), (("http/1.1",), "http/1.1"), (("h2",), "h2"), (("http/1.1", "h2"), "h2"), (("spdy/1", "http/1.1"), "http/1.1")]
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken_with_http_2_where_the_client_offers_it(secure, version, offered, taken):
    with tls.connect(secure, *offered, context=unchecked(minimum_version=version, maximum_version=version)) as connection:
        assert connection.selected_alpn_protocol() == taken
        if taken != "h2":
            connection.sendall(GET)
            assert read_response(connection)[0] == 200


def test_older_versions_other_protocols_and_plain_text_are_refused_and_the_service_goes_on(secure):
    for minor in (0, 1):
        command = ["openssl", "s_client", "-connect", secure.address, f"-tls1{'_1' * minor}", "-cipher", "ALL:@SECLEVEL=0"]
        shown = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
        assert shown.returncode != 0 and "Cipher is (NONE)" in shown.stdout, shown
    with pytest.raises(ssl.SSLError):
        tls.connect(secure, "spdy/1")
    for sent in (GET, tls.PREFACE, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", os.urandom(100)):
        with secure.connection() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := reset_is_end(connection):
                received += part
            assert not received.startswith(b"HTTP/")
    # Without HTTP/2 in the handshake there is none: prior knowledge does not help.
    with tls.connect(secure) as connection:
        connection.sendall(tls.PREFACE)
        assert (reset_is_end(connection) or b"HTTP/1.1 4").startswith(b"HTTP/1.1 4")
    assert secure.is_up()


def reset_is_end(connection) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


def test_the_whole_life_of_a_custom_csr_is_the_same_on_http_1_and_http_2(secure):
    zone = secure.tenant()
    one = secure.client
    for version, client in (("HTTP/1.1", one), ("HTTP/2", secure.new_client(http2=True))):
        secure.client = client
        try:
            created = zone.create()
            assert zone.wait_active(created["id"])["csr"].startswith("-----BEGIN")
            assert zone.request("DELETE", f"/{created['id']}").status == 200
            assert zone.request("POST", json=subject(country="x")).status == 400
            assert zone.request("POST", json=subject(), token="x").status == 401
            answer = client.get(secure.url + "/docs")
            assert answer.http_version == version and answer.status_code == 200 and len(answer.content) > 100_000
        finally:
            secure.client = one


def test_on_http_2_a_token_is_refused_before_the_body_comes_and_a_host_is_that_of_authority(secure):
    zone, client = secure.tenant(), tls.Http2(secure)
    # The library would not send two hosts.
    client.h2.config.validate_outbound_headers = False

    def code(method: str, *headers: tuple[str, str], end: bool = True) -> int | None:
        _, body = client.answer(client.request(method, zone.path, *headers, end=end))
        return next((error["code"] for error in json.loads(body)["errors"]), None)

    good, bad = (("authorization", f"Bearer {token}") for token in (zone.token, "x.y.z"))
    assert code("POST", bad, ("content-type", "application/json"), ("content-length", "50"), end=False) == 1001
    assert code("GET", good) is None
    assert code("GET", good, ("host", secure.address)) is None
    assert code("GET", good, ("host", "elsewhere.example")) == 1400
    assert code("GET", good) is None, "the connection goes on"
    client.close()


def test_a_body_over_64_kib_and_headers_over_64_kib_are_refused_on_http_2(secure):
    zone = secure.tenant()
    client = secure.new_client(http2=True)
    headers = {"Authorization": f"Bearer {zone.token}", "Content-Type": "application/json"}
    # The client sends all before it looks for the answer.
    for size, token, status, code in ((70_000, zone.token, 413, 1467), (2_000_000, zone.token, 413, 1467), (2_000_000, "x", 401, 1001)):
        answer = client.post(secure.url + zone.path, headers=headers | {"Authorization": f"Bearer {token}"}, content=b" " * size)
        assert (answer.http_version, answer.status_code) == ("HTTP/2", status)
        assert check_envelope(status, answer.headers, answer.content)["errors"][0]["code"] == code
    assert client.get(secure.url + "/health/live", headers={f"x{number}": "y" * 4_000 for number in range(15)}).status_code == 200
    # The connection may end before the client has sent it all.
    with suppress(httpx.TransportError):
        assert client.get(secure.url + "/health/live", headers={f"x{number}": "y" * 4_000 for number in range(18)}).status_code == 431
    assert secure.new_client(http2=True).get(secure.url + "/health/live").status_code == 200


def test_curl_and_openssl_speak_with_it(secure):
    url = f"https://localhost:{secure.host_and_port[1]}/health/live"
    for version in ("--http1.1", "--http2"):
        command = ["curl", "-sS", version, "--cacert", secure.pair.cert, "-w", "\n%{http_version} %{http_code}", url]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
        assert json.loads(shown[0])["success"] and shown[1] == f"{'2' if version == '--http2' else '1.1'} 200"
        head = subprocess.run([*command[:-3], "-I", url], capture_output=True, text=True, timeout=60, check=True).stdout
        assert head.splitlines()[0].split()[1] in ("200", "405"), head
    command = ["openssl", "s_client", "-connect", secure.address, "-CAfile", secure.pair.cert, "-alpn", "h2", "-verify_return_error"]
    shown = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=True).stdout
    assert "ALPN protocol: h2" in shown and "Verify return code: 0 (ok)" in shown


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())], ids=["rsa", "p384"])
def test_keys_of_other_kinds_serve_too_and_a_changed_pair_is_taken_without_dropping_a_connection(secure, key):
    with tls.connect(secure) as before:

        def stays() -> bool:
            # Again and again: one without requests would be closed.
            before.sendall(GET)
            return read_response(before)[0] == 200

        assert stays()
        new = secure.pair.replace(key)
        secure.process.send_signal(signal.SIGHUP)
        wait_until(lambda: stays() and served(secure) == new, "new connections get the new certificate", 60)
        assert stays()
    assert "the TLS certificate and its key were loaded anew" in secure.log()
    secure.tls = secure.pair.trusted()
    secure.client = secure.new_client()
    assert secure.is_up()


def served(csrd) -> int:
    with tls.connect(csrd) as connection:
        return tls.serial(connection)


def test_a_changed_pair_is_noticed_without_a_signal(secure):
    new = secure.pair.replace()
    wait_until(lambda: served(secure) == new, "new connections get the new certificate", 60)
    secure.tls = secure.pair.trusted()
    secure.client = secure.new_client()


def test_a_pair_that_cannot_be_used_is_refused_in_the_log_which_names_the_file_and_the_present_one_stays(secure, tmp_path):
    pair, other = secure.pair, tls.Pair(tmp_path / "other")
    present, good = served(secure), (pair.cert.read_bytes(), pair.key.read_bytes())
    cases = [
        (lambda: tls.put(pair.key, other.key.read_bytes()), "--tls-key", pair.key, "not the key of the first certificate"),
        (lambda: tls.put(pair.cert, b"no certificate"), "--tls-cert", pair.cert, "no certificate in PEM"),
        (lambda: tls.put(pair.cert, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "--tls-cert", pair.cert, "cannot be read"),
        (lambda: tls.put(pair.key, b""), "--tls-key", pair.key, "no private key in PEM"),
        (pair.key.unlink, "--tls-key", pair.key, "no such file"),
        (lambda: os.chmod(pair.key, 0o644), "--tls-key", pair.key, "chmod 600"),
    ]
    for spoil, setting, file, why in cases:
        began = len(secure.log())
        spoil()
        secure.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "stay as they are" in secure.log()[began:], "the log says so", 60)  # noqa: B023
        assert setting in secure.log()[began:] and str(file) in secure.log()[began:] and why in secure.log()[began:], secure.log()[began:]
        assert served(secure) == present
        tls.put(pair.cert, good[0])
        tls.put(pair.key, good[1])
    assert secure.is_up()


def test_a_setting_that_cannot_work_is_one_line_that_names_it(tmp_path):
    pair, other = tls.Pair(tmp_path / "pair"), tls.Pair(tmp_path / "other")
    locked = tmp_path / "locked.pem"
    locked.touch(0o600)
    key = ec.generate_private_key(ec.SECP256R1())
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    old = tmp_path / "old.pem"
    old.touch(0o600)
    old.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"x")))
    cut = tmp_path / "cut.pem"
    cut.write_bytes(pair.cert.read_bytes()[:-30])
    readable = tmp_path / "readable.pem"
    readable.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    readable.chmod(0o644)
    cert, private = ["--tls-cert", str(pair.cert)], ["--tls-key", str(pair.key)]
    for arguments, words in [
        (cert, "--tls-key is missing"),
        (private, "--tls-cert is missing"),
        ([*cert, "--tls-key", str(other.key)], "--tls-key: "),
        ([*cert, "--tls-key", str(locked)], "password"),
        ([*cert, "--tls-key", str(old)], "it has a password"),
        ([*private, "--tls-cert", str(cut)], "its END line is missing"),
        ([*cert, "--tls-key", str(readable)], "chmod 600"),
        ([*cert, "--tls-key", str(pair.cert)], "--tls-key: "),
        ([*private, "--tls-cert", str(pair.key)], "--tls-cert: "),
        ([*private, "--tls-cert", str(tmp_path / "none")], "no such file"),
    ]:
        refused(run("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "data", *arguments), 2, words)
    assert not (tmp_path / "data").exists()


def test_an_ed25519_key_serves(new_csrd, tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    pair = tls.Pair.__new__(tls.Pair)
    pair.cert, pair.key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-key", pair.key, "-out", pair.cert, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"]
    tls.put(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    csrd = new_csrd(*pair.arguments(), "--workers", "0", tls=pair.trusted()).start()
    assert csrd.is_up()
    assert csrd.stop() == 0


def test_a_request_in_flight_on_http_2_is_answered_at_sigterm_and_a_silent_client_holds_nothing_up(new_csrd, tmp_path):
    pair = tls.Pair(tmp_path / "pair")
    # Without workers it stays pending, and who waits for it waits for long.
    csrd = new_csrd(*pair.arguments(), "--workers", "0", tls=pair.trusted()).start()
    zone = csrd.tenant()
    client = tls.Http2(csrd)
    fields = [("authorization", f"Bearer {zone.token}"), ("content-type", "application/json"), ("prefer", "wait=30")]
    stream = client.request("POST", zone.path, *fields, end=False)
    client.h2.send_data(stream, json.dumps(subject()).encode(), end_stream=True)
    client.flush()
    wait_until(lambda: zone.total() == 1, "it is accepted")
    with tls.connect(csrd, "h2"), csrd.connection():
        csrd.terminate()
        status, content = client.answer(stream)
        assert status == 201 and json.loads(content)["success"]
        assert csrd.wait() == 0
    client.close()
