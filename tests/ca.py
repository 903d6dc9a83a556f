"""A certification authority of the tests' own, and a client of the custom certificates of a zone."""

import datetime
import subprocess
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID, NameOID
from harness import Answer, Tenant

SECOND = datetime.timedelta(seconds=1)
DAY = datetime.timedelta(days=1)
SHA256 = hashes.SHA256()

# What `openssl ca` has to be told; the subject is taken from the CSR as it stands.
OPENSSL_CA = """
[ca]
default_ca = here
[here]
database = index.txt
rand_serial = yes
unique_subject = no
policy = any
preserve = yes
[any]
countryName = optional
stateOrProvinceName = optional
localityName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
"""


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def openssl(*arguments, cwd: Path | None = None) -> str:
    """Runs openssl, which has to succeed."""
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def small_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def new_csr(common_name: str = "other.acme-widgets.com") -> str:
    """A CSR for a key that was not made by csrd."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
    return pem(builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256))


def pem(thing) -> str:
    return thing.public_bytes(Encoding.PEM).decode()


def names_of(csr: str) -> list[str]:
    found = x509.load_pem_x509_csr(csr.encode()).extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    return found.value.get_values_for_type(x509.DNSName)


class Authority:
    """A root, or an intermediate where an issuer is given."""

    def __init__(
        self, common_name: str = "Root of a test", *, key=None, digest=SHA256, issuer: "Authority | None" = None, organization: str | None = "Test CA"
    ):
        self.key, self.digest = key or ec.generate_private_key(ec.SECP256R1()), digest
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
        self.name = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        self.issuer = issuer
        signer = issuer or self
        self.certificate = self._builder(self.name, self.key.public_key(), -DAY, 3650 * DAY, True, signer).sign(signer.key, signer.digest)
        self.pem = pem(self.certificate)

    @property
    def chain(self) -> str:
        """What a server sends after its leaf: this certificate and those above it, but for the root."""
        return self.pem + self.issuer.chain if self.issuer else ""

    @staticmethod
    def _builder(subject, public_key, begins, ends, ca: bool, issuer: "Authority"):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number())
        # Times in certificates are whole seconds.
        moment = now().replace(microsecond=0)
        end = ends if isinstance(ends, datetime.datetime) else moment + ends
        builder = builder.not_valid_before(moment + begins).not_valid_after(end)
        return builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)

    def issue(self, csr: str, *, begins=-SECOND, ends=90 * DAY, sans: list | None = None, subject=None, ca: bool = False, authority_key: bool = False) -> str:
        """
        Signs a CSR, with its SANs unless others are given, which may be of any kind.

        `begins` is counted from now, `ends` too, unless it is a point in time.
        """
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        names = [x509.DNSName(name) if isinstance(name, str) else name for name in (names_of(csr) if sans is None else sans)]
        builder = self._builder(subject or request.subject, request.public_key(), begins, ends, ca, self)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if authority_key:
            builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        return pem(builder.sign(self.key, self.digest))

    def issue_by_openssl(self, csr: str, *, begins=-SECOND, ends=90 * DAY, digest: str = "sha256", ca: bool = False) -> str:
        """Signs a CSR with the program, which knows no better than to use MD5 where told so."""

        def at(offset: datetime.timedelta) -> str:
            return (now() + offset).strftime("%Y%m%d%H%M%SZ")

        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            extensions = f"basicConstraints=critical,CA:{'TRUE' if ca else 'FALSE'}\nsubjectAltName=" + ",".join(f"DNS:{name}" for name in names_of(csr))
            for file, text in {
                "ca.pem": self.pem, "ca.key": key, "csr.pem": csr, "conf": OPENSSL_CA, "extensions": extensions, "index.txt": "",
            }.items():  # fmt: skip
                (directory / file).write_text(text)
            openssl(
                "ca", "-batch", "-notext", "-config", "conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", "csr.pem", "-out", "leaf.pem",
                "-outdir", ".", "-md", digest, "-startdate", at(begins), "-enddate", at(ends), "-extfile", "extensions", cwd=directory,
            )  # fmt: skip
            return (directory / "leaf.pem").read_text()


class Certificates:
    """The custom certificates of a zone, as its client sees them."""

    def __init__(self, zone: Tenant):
        self.zone, self.path = zone, zone.path.removesuffix("custom_csrs") + "custom_certificates"

    def request(self, method: str, suffix: str = "", **arguments) -> Answer:
        arguments.setdefault("token", self.zone.token)
        return self.zone.service.request(method, self.path + suffix, **arguments)

    def post(self, *, params: dict | None = None, **body) -> Answer:
        return self.request("POST", json=body, params=params)

    def patch(self, certificate_id: str, *, params: dict | None = None, **body) -> Answer:
        return self.request("PATCH", f"/{certificate_id}", json=body, params=params)

    def upload(self, custom_csr_id: str, certificate: str, **body) -> dict:
        """Uploads a certificate, which has to be accepted."""
        answer = self.post(custom_csr_id=custom_csr_id, certificate=certificate, **body)
        assert answer.status == 201, answer
        return answer.result

    def get(self, certificate_id: str) -> dict:
        answer = self.request("GET", f"/{certificate_id}")
        assert answer.status == 200, answer
        return answer.result

    def all(self, **query) -> list[dict]:
        """Every custom certificate, newest first."""
        rows, page = [], 1
        while found := self.request("GET", params={"per_page": 50, "page": page} | query).result:
            rows, page = rows + found, page + 1
        return rows


def warnings(answer: Answer) -> list[tuple[int, str | None]]:
    """The numbers of the warnings, with what they point at."""
    return [(entry["code"], entry.get("source", {}).get("pointer")) for entry in answer.envelope["messages"]]


def active(tenant: Tenant, **changes) -> dict:
    """A custom CSR that has its key."""
    return tenant.wait_active(tenant.create(**changes)["id"])
