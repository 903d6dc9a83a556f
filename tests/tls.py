"""Certificates for csrd's own listener, and HTTP/2 spoken by hand."""

import datetime
import ipaddress
import socket
import ssl
import time
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import Csrd

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Pair:
    """The files of a self-signed certificate for 127.0.0.1 and of its key."""

    def __init__(self, directory: Path, key=None):
        directory.mkdir(parents=True, exist_ok=True)
        self.cert, self.key = directory / "cert.pem", directory / "key.pem"
        self.serial = self.replace(key)

    def replace(self, key=None) -> int:
        """Makes another certificate, in files that take the place of these; returns its serial number."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "csrd")])
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(key, SHA256())
        put(self.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        put(self.cert, certificate.public_bytes(Encoding.PEM))
        self.serial = certificate.serial_number
        return self.serial

    def arguments(self) -> list[str]:
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]

    def trusted(self) -> ssl.SSLContext:
        """What a client needs to trust the certificate of now."""
        return ssl.create_default_context(cafile=str(self.cert))


def put(path: Path, content: bytes) -> None:
    """Replaces a file as a renewal does: by another one."""
    (new := path.with_suffix(".new")).touch(0o600)
    new.write_bytes(content)
    new.rename(path)


def connect(csrd: Csrd, *protocols: str, context: ssl.SSLContext | None = None, seconds: float = 30.0) -> ssl.SSLSocket:
    """A TLS connection on which these protocols are offered, whatever the certificate is."""
    if context is None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context.wrap_socket(socket.create_connection(csrd.host_and_port, timeout=seconds), server_hostname="localhost")


def serial(connection: ssl.SSLSocket) -> int:
    """The serial number of the server's certificate."""
    return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


class Http2:
    """One HTTP/2 connection. It takes no more of a response than its windows are given room for."""

    def __init__(self, csrd: Csrd, **settings: int):
        self.csrd = csrd
        self.socket = connect(csrd, "h2")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        values = {getattr(h2.settings.SettingCodes, name.upper()): value for name, value in settings.items()}
        self.h2.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, method: str, path: str, *headers: tuple[str, str], end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "https"), (":authority", self.csrd.address), (":path", path), *headers]
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def events(self, seconds: float) -> list:
        """What the server sends within so many seconds, at most until it sends something or closes: then there is `None` at the end."""
        self.socket.settimeout(seconds)
        try:
            received = self.socket.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            return []
        except OSError:
            return [None]
        if not received:
            return [None]
        try:
            events = self.h2.receive_data(received)
            self.flush()
        except (OSError, h2.exceptions.ProtocolError):
            # After a GOAWAY it takes no frame any more.
            return [None]
        return events

    def closed_within(self, seconds: float) -> bool:
        """Answers pings, and nothing else, until the server closes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if None in self.events(1.0):
                return True
        return False

    def answer(self, stream: int, seconds: float = 30.0) -> tuple[int, bytes]:
        """The status and body of a response."""
        status, body, deadline = 0, b"", time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.events(1.0):
                assert event is not None, "closed before the answer"
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                    self.flush()
                elif isinstance(event, h2.events.StreamEnded):
                    return status, body
        raise AssertionError(f"no answer within {seconds} s")

    def close(self) -> None:
        self.socket.close()
