"""Uploads as CAs, converters and users really send them, made for the CSR at hand.

Each function below is a case of chain_cases.json: it takes a Workshop and returns the text of `certificate`. Names begin
with what they are about: the form in which certificates come, the chain and its signatures, or something other."""
import base64
import functools
import itertools
import json
import re
import textwrap
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519

import mint
from mint import (
    CA, DAY, HASHES, algorithm, basic_constraints, bits, block, extended_key_usage, extension, integer, key_usage, name, now, octets, oid, pem, seq, sign,
    spki, text, tlv, when,
)  # fmt: skip

USUAL = {"bc": basic_constraints(False), "ku": key_usage(0), "eku": extended_key_usage(mint.SERVER_AUTH)}


@functools.cache
def rsa_key(bits_: int = 2048, exponent: int = 65537):
    return rsa.generate_private_key(exponent, bits_)


@functools.cache
def roots() -> tuple[CA, CA]:
    """P-256 and RSA: what --trust-anchors is given."""
    return CA("Acme Root"), CA("Acme RSA Root", rsa_key())


class Workshop:
    """The roots, an intermediate, and leaves for one CSR."""

    def __init__(self, csr_pem: str, old_csr_pem: str | None = None):
        self.request = x509.load_pem_x509_csr(csr_pem.encode())
        self.csr_pem, self.old_csr_pem = csr_pem, old_csr_pem
        self.public, self.subject = spki(self.request), self.request.subject.public_bytes()
        self.sans = [n.value for n in self.request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
        (self.root, self.rsa), self.sub = roots(), CA("Acme Issuing CA 1")
        self.root_der, self.sub_der, self.rsa_der = self.root.root(), self.root.authority(self.sub, path_length=0), self.rsa.root()

    def leaf(self, ca=None, *, sans=None, subject=None, public=None, more=(), bc=..., ku=..., eku=..., **how) -> bytes:
        """The CSR's leaf; an extension that is None is left out."""
        chosen = {k: USUAL[k] if v is ... else v for k, v in (("bc", bc), ("ku", ku), ("eku", eku))}
        names = [] if sans == [] else [mint.alternative_names(*(self.sans if sans is None else sans))]
        extensions = [*names, *(v for v in chosen.values() if v), *more]
        return (ca or self.sub).issue(subject or self.subject, public or self.public, extensions, **how)

    def usual(self, **changes) -> str:
        return pem(self.leaf(**changes), self.sub_der)

    def under(self, sub: CA, **changes) -> str:
        """leaf, an intermediate made with these changes, root"""
        return pem(self.leaf(sub), self.root.authority(sub, **changes), self.root_der)


# Forms

def form_empty_line_before_end(w):
    return w.usual().replace("\n-----END", "\n\n-----END")


def form_empty_line_in_the_middle(w):
    lines = w.usual().split("\n")
    return "\n".join([*lines[:4], "", *lines[4:]])


def form_every_line_end_doubled(w):
    return w.usual().replace("\n", "\n\n")


def form_backslash_n(w):
    return w.usual().replace("\n", "\\n")


def form_spaces_for_line_ends(w):
    return w.usual().replace("\n", " ")


def form_tab_before_each_line(w):
    return "".join("\t" + line + "\n" for line in w.usual().splitlines())


def form_space_after_each_line(w):
    return w.usual().replace("\n", " \n")


def form_trusted_certificate(w):
    trust = seq(seq(oid(mint.SERVER_AUTH)))  # what openssl x509 -trustout appends
    return block(w.leaf() + trust, "TRUSTED CERTIFICATE") + pem(w.sub_der)


def _pkcs7(w, *certificates) -> bytes:
    signed = seq(integer(1), tlv(0x31), seq(oid("1.2.840.113549.1.7.1")), tlv(0xA0, *certificates), tlv(0x31))
    return seq(oid("1.2.840.113549.1.7.2"), tlv(0xA0, signed))


def form_pkcs7(w):
    return block(_pkcs7(w, w.leaf(), w.sub_der, w.root_der), "PKCS7")


def form_bare_base64(w):
    return base64.b64encode(w.leaf()).decode()


def form_text_dump(w):
    """openssl x509 -text of a leaf with 500 names: the text alone is over the body's limit."""
    names = [f"host-{n:03}.{'long-label-' * 5}x.acme-widgets.com" for n in range(500)]
    dump = "Certificate:\n" + "\n".join(f"                DNS:{n}, DNS:{n}" for n in names) + "\n"
    return dump + pem(w.leaf(sans=[*w.sans, *names[:100]]), w.sub_der)


# Chains and signatures

def chain_pss_salt_222(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha256", 222, "sha256")), w.rsa_der)


def chain_pss_salt_32(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha256", 32, "sha256")), w.rsa_der)


def chain_pss_salt_222_alone(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha256", 222, "sha256")))


def chain_root_of_version_1(w):
    return pem(w.leaf(), w.sub_der, w.root.root(version=1))


def chain_leaf_and_root_of_version_1(w):
    return pem(w.leaf(w.root), w.root.root(version=1))


def chain_issuer_in_another_encoding(w):
    root = CA(name(O=("Acme CA", "printable")))
    return pem(w.leaf(root, issuer=name(O="Acme CA")), root.root())


def _crossed(w):
    old, new, sub = CA("Acme Old Root"), CA("Acme New Root"), CA("Acme Issuing CA 2")
    return w.leaf(sub), new.authority(sub), old.authority(new), new.root(), old.root()


def chain_cross_sign_then_self_signed(w):
    leaf, sub, crossed, new, _ = _crossed(w)
    return pem(leaf, sub, crossed, new)


def chain_self_signed_then_cross_sign(w):
    leaf, sub, crossed, new, old = _crossed(w)
    return pem(leaf, sub, new, crossed, old)


def chain_one_intermediate_by_two_roots(w):
    old, new, sub = CA("Acme Old Root"), CA("Acme New Root"), CA("Acme Issuing CA X3")
    return pem(w.leaf(sub), new.authority(sub), old.authority(sub))


def chain_leaf_twice(w):
    leaf = w.leaf()
    return pem(leaf, leaf, w.sub_der)


def chain_leaf_again_at_the_end(w):
    leaf = w.leaf()
    return pem(leaf, w.sub_der, leaf)


def chain_intermediate_twice(w):
    return pem(w.leaf(), w.sub_der, w.sub_der)


def chain_root_twice(w):
    return pem(w.leaf(), w.sub_der, w.root_der, w.root_der)


def chain_expired_intermediate(w):
    return w.under(CA("Acme Issuing CA 3"), begin=now() - 400 * DAY, end=now() - DAY)


def chain_expired_intermediate_without_root(w):
    sub = CA("Acme Issuing CA 3")
    return pem(w.leaf(sub), w.root.authority(sub, begin=now() - 400 * DAY, end=now() - DAY))


def chain_intermediate_with_3_days_left(w):
    return w.under(CA("Acme Issuing CA 4"), end=now() + 3 * DAY)


def chain_expired_root(w):
    return pem(w.leaf(), w.sub_der, w.root.root(begin=now() - 4000 * DAY, end=now() - DAY))


def chain_intermediate_shorter_than_leaf(w):
    return w.under(CA("Acme Issuing CA 6"), end=now() + 40 * DAY)


def chain_client_auth_only(w):
    return w.usual(eku=extended_key_usage(mint.CLIENT_AUTH))


def chain_key_usage_cert_sign_only(w):
    return w.usual(ku=key_usage(5))


def chain_unknown_critical_extension(w):
    return w.usual(more=[extension("1.3.6.1.4.1.55555.1", octets(b"x"), True)])


def chain_without_usages(w):
    return w.usual(ku=None, eku=None)


def chain_any_extended_key_usage(w):
    return w.usual(eku=extended_key_usage("2.5.29.37.0"))


P256 = seq(integer(1), seq(oid("1.2.840.10045.1.1"), integer(2**256 - 2**224 + 2**192 + 2**96 - 1)),
           seq(octets(bytes.fromhex("ffffffff00000001000000000000000000000000fffffffffffffffffffffffc")),
               octets(bytes.fromhex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b"))),
           octets(bytes.fromhex("046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")),
           integer(0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551), integer(1))


def _explicit(public) -> bytes:
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return seq(seq(oid("1.2.840.10045.2.1"), P256), bits(point))


def chain_intermediate_with_explicit_curve(w):
    sub = CA("Acme Issuing CA 7")
    return w.under(sub, public=_explicit(sub.key.public_key()))


def chain_leaf_key_with_explicit_curve(w):
    """For a P-256 CSR: the same key, encoded otherwise."""
    return w.usual(public=_explicit(w.request.public_key()))


def chain_rsa_leaf_key_without_null(w):
    """For an RSA CSR."""
    numbers = w.request.public_key().public_numbers()
    return w.usual(public=seq(seq(oid("1.2.840.113549.1.1.1")), bits(seq(integer(numbers.n), integer(numbers.e)))))


def _serials(w, serial, where):
    root, sub = CA("Acme Root S") if where == "root" else w.root, CA("Acme Issuing CA S")
    at = {k: {"serial": serial} if k == where else {} for k in ("leaf", "intermediate", "root")}
    return pem(w.leaf(sub, **at["leaf"]), root.authority(sub, **at["intermediate"]), root.root(**at["root"]))


SERIALS = {"0": 0, "negative": -5, "of_21_octets": 1 << 166, "of_36_octets": 1 << 286}


def chain_leaf_generalized_2027(w):
    return w.usual(end=tlv(0x18, (now() + 90 * DAY).strftime("%Y%m%d%H%M%SZ").encode()))


def chain_utctime_2049(w):
    return w.usual(end=tlv(0x17, b"491231235959Z"))


def chain_utctime_1950(w):
    return w.usual(begin=tlv(0x17, b"500101000000Z"))


def chain_no_expiry(w):
    return w.usual(end=tlv(0x18, b"99991231235959Z"))


def chain_utctime_without_seconds(w):
    return w.usual(end=tlv(0x17, (now() + 90 * DAY).strftime("%y%m%d%H%MZ").encode()))


def chain_fraction_of_a_second(w):
    return w.usual(end=tlv(0x18, (now() + 90 * DAY).strftime("%Y%m%d%H%M%S.5Z").encode()))


def chain_serial_with_a_needless_octet(w):
    return w.usual(serial=b"\x02\x03\0\0\5")


def chain_length_with_a_needless_octet(w):
    leaf = w.leaf()
    assert leaf[:2] == b"\x30\x82"
    return pem(b"\x30\x83\0" + leaf[2:], w.sub_der)


def _issuer(w, **subject):
    ca = CA(name(**subject))
    return pem(w.leaf(ca), ca.root())


def chain_t61_latin_1(w):
    return _issuer(w, O=("Müller AG", "t61"), CN="Acme CA")


def chain_bmp(w):
    return _issuer(w, O=("Müller AG", "bmp"), CN="Acme CA")


def chain_bmp_surrogates(w):
    return _issuer(w, O=("Acme \U0001F511", "bmp"), CN="Acme CA")


def chain_bmp_only(w):
    return _issuer(w, CN=("Müller CA", "bmp"))


def chain_unique_identifier(w):
    return _issuer(w, O="Acme AG", uniqueIdentifier=bits(b"\x12\x34"))


def chain_wrong_neighbour_in_bmp(w):
    """Refused; its text has to name the CA as people read it."""
    return pem(w.leaf(), CA(name(O=("Müller AG", "bmp"))).root())


# Other things

def other_leaf_and_root(w):
    return pem(w.leaf(), w.root_der)


def other_root_first(w):
    """The order of PKCS#7 that AD CS exports."""
    return pem(w.root_der, w.sub_der, w.leaf())


def other_www_and_apex(w):
    return w.usual(sans=[*w.sans, "acme-widgets.com"])


def other_starts_in_5_minutes(w):
    return w.usual(begin=now() + DAY / 288)


def other_starts_in_30_seconds(w):
    """A CA whose clock is ahead a little; tokens get 60 s."""
    return w.usual(begin=now() + DAY / 2880)


def other_key_before_rekey(w):
    return Workshop(w.old_csr_pem).usual()


def other_100_names_added(w):
    return w.usual(sans=[*w.sans, *(f"host-{n:03}.acme-widgets.com" for n in range(100))])


def other_names_in_upper_case(w):
    return w.usual(sans=[s.upper() for s in w.sans])


def other_ip_mail_uri(w):
    return w.usual(sans=[*w.sans, tlv(0x87, bytes([192, 0, 2, 7])), tlv(0x81, b"ops@acme-widgets.com"), tlv(0x86, b"spiffe://acme/web")])


def other_no_common_name(w):
    return w.usual(subject=name(O="Acme"))


def other_empty_subject(w):
    return w.usual(subject=seq())


def other_no_names(w):
    return w.usual(sans=[])


def other_sct_list(w):
    return w.usual(more=[extension("1.3.6.1.4.1.11129.2.4.2", octets(bytes.fromhex("0004000200aa")))])


def other_must_staple(w):
    return w.usual(more=[extension("1.3.6.1.5.5.7.1.24", seq(integer(5)))])


def other_policy_in_bmp(w):
    notice = seq(oid("1.3.6.1.5.5.7.2.2"), seq(text("Nur für Testzwecke", "bmp")))
    return w.usual(more=[extension("2.5.29.32", seq(seq(oid("2.23.140.1.2.2"), seq(notice))))])


def other_ad_cs(w):
    """Template, template name in BMP, CA version, NTDS: what AD CS adds."""
    template = extension("1.3.6.1.4.1.311.21.7", seq(oid("1.3.6.1.4.1.311.21.8.1.2"), integer(100), integer(3)))
    return w.usual(more=[template, extension("1.3.6.1.4.1.311.20.2", text("WebServer", "bmp")), extension("1.3.6.1.4.1.311.21.10", seq(seq(oid(mint.SERVER_AUTH))))],
                   ku=key_usage(0, 2))


def other_names_excluded(w):
    permitted = seq(tlv(0xA0, seq(tlv(0x82, b"other-company.com"))))
    return w.under(CA("Acme Constrained CA"), more=[extension("2.5.29.30", permitted, True)])


def other_intermediate_without_cert_sign(w):
    return w.under(CA("Acme Issuing CA 9"), extensions=[basic_constraints(True), key_usage(0, 6)])


def other_other_key_identifier(w):
    return w.usual(more=[mint.authority_key_identifier(b"\x01" * 20)])


def other_unique_ids(w):
    return w.usual(unique=tlv(0x81, b"\0\x12\x34") + tlv(0x82, b"\0\x56"))


def other_rsa_1024_ca(w):
    ca = CA("Acme Old RSA", rsa_key(1024))
    return pem(w.leaf(ca), ca.root())


def other_rsa_exponent_3(w):
    ca = CA("Acme RSA e=3", rsa_key(2048, 3))
    return pem(w.leaf(ca), ca.root())


def other_sha1_root(w):
    sub = CA("Acme Issuing CA 10")
    return pem(w.leaf(sub), w.rsa.authority(sub), w.rsa.root(how="sha1"))


def other_brainpool_ca(w):
    ca = CA("Acme Brainpool", ec.generate_private_key(ec.BrainpoolP256R1()))
    return pem(w.leaf(ca), ca.root())


def other_ed448_ca(w):
    ca = CA("Acme Ed448", ed448.Ed448PrivateKey.generate())
    return pem(w.leaf(ca), ca.root())


def other_ml_dsa_ca(w):
    return pem(w.leaf(how=seq(oid("2.16.840.1.101.3.4.3.18"))), w.sub_der)


def other_rsa_for_pss_only(w):
    """The CA's key says RSASSA-PSS itself (RFC 4055, 1.2)."""
    numbers = rsa_key().public_key().public_numbers()
    public = seq(seq(oid("1.2.840.113549.1.1.10")), bits(seq(integer(numbers.n), integer(numbers.e))))
    ca = CA("Acme PSS Root", rsa_key(), how=("pss", "sha256", 32, "sha256"))
    return pem(w.leaf(ca), ca.root(public=public))


def other_100_years(w):
    return w.usual(end=now() + 36500 * DAY)


def other_ends_before_it_begins(w):
    return w.usual(begin=now() + 9 * DAY, end=now() + 3 * DAY)


def other_47_days(w):
    return w.usual(end=now() + 46 * DAY)


def other_6_days(w):
    return w.usual(begin=now() - DAY / 24, end=now() + 6 * DAY)


def other_the_csr_itself(w):
    return w.csr_pem


def other_with_ec_parameters(w):
    return block(oid("1.2.840.10045.3.1.7"), "EC PARAMETERS") + w.usual()


def other_with_crl(w):
    return w.usual() + block(seq(seq()), "X509 CRL")


def other_bag_attributes(w):
    """openssl pkcs12 -nokeys"""
    attributes = "Bag Attributes\n    localKeyID: 01 00 00 00 \n    friendlyName: Müller\nsubject=C = US, O = Acme\n\nissuer=O = Acme Trust\n\n"
    return "".join(attributes + block(d) for d in (w.leaf(), w.sub_der))


def other_dashes_of_a_word_processor(w):
    return w.usual().replace("-----", "\u2013\u2013\u2014")


def other_byte_order_mark(w):
    return "\ufeff" + w.usual()


def other_no_break_spaces(w):
    return w.usual().replace("\n", "\u00a0\n")


def other_lower_case_label(w):
    return w.usual().replace("BEGIN CERTIFICATE", "begin certificate").replace("END CERTIFICATE", "end certificate")


def other_quoted(w):
    return '"' + w.usual() + '"'


def other_html_escaped(w):
    return "<pre>" + w.usual().replace("+", "&#43;") + "</pre>"


def other_url_encoded(w):
    return w.usual().replace("+", "%2B").replace("\n", "%0A").replace(" ", "%20").replace("/", "%2F").replace("=", "%3D")


def other_unlabelled_end(w):
    """The last line lost in copying."""
    return w.usual().rstrip().removesuffix("-----END CERTIFICATE-----")


def other_indefinite_length(w):
    """BER: some HSM vendors' CAs write it."""
    leaf = w.leaf()
    return pem(b"\x30\x80" + leaf[4:] + b"\0\0", w.sub_der)


def _constraints(content: bytes) -> bytes:
    return extension("2.5.29.19", content, True)


def other_false_written_out(w):
    """cA FALSE in so many words: not DER, and common."""
    return w.usual(bc=_constraints(seq(tlv(1, b"\0"))))


def other_true_as_one(w):
    """cA TRUE as 01, which BER allows."""
    return w.under(CA("Acme Issuing CA 11"), extensions=[_constraints(seq(tlv(1, b"\1"))), key_usage(5, 6)])


def other_constraints_not_critical(w):
    return w.under(CA("Acme Issuing CA 12"), extensions=[extension("2.5.29.19", seq(tlv(1, b"\xff"))), key_usage(5, 6)])


def other_usage_bits_not_minimal(w):
    return w.usual(ku=extension("2.5.29.15", bits(b"\x80"), True))


def other_rsa_signature_without_null(w):
    return pem(w.leaf(w.rsa, identifier=seq(oid("1.2.840.113549.1.1.11"))), w.rsa_der)


def other_ecdsa_signature_with_null(w):
    return w.usual(identifier=seq(oid("1.2.840.10045.4.3.2"), tlv(5)))


# More of each kind

def _lines(der: bytes, end: str = "\r\n") -> str:
    return end.join(textwrap.wrap(base64.b64encode(der).decode(), 76)) + end


def form_pkcs7_labelled_certificate(w):
    return block(_pkcs7(w, w.leaf(), w.sub_der))


def form_cms(w):
    return block(_pkcs7(w, w.sub_der, w.leaf()), "CMS")


def form_bare_pkcs7(w):
    return _lines(_pkcs7(w, w.leaf(), w.sub_der))


def form_pkcs7_of_indefinite_length(w):
    """As Windows and Java write it."""
    def open_ended(tag, *parts):
        return bytes([tag, 0x80]) + b"".join(parts) + b"\0\0"

    signed = open_ended(0x30, integer(1), tlv(0x31), seq(oid("1.2.840.113549.1.7.1")), open_ended(0xA0, w.leaf(), w.sub_der), tlv(0x31))
    return block(open_ended(0x30, oid("1.2.840.113549.1.7.2"), open_ended(0xA0, signed)), "PKCS7")


def form_pkcs7_without_certificates(w):
    return block(_pkcs7(w), "PKCS7")


def form_leaf_and_pkcs7_of_the_rest(w):
    return pem(w.leaf()) + block(_pkcs7(w, w.sub_der, w.root_der), "PKCS7")


def form_x509_certificate(w):
    return pem(w.leaf(), w.sub_der, label="X509 CERTIFICATE")


def form_carriage_returns_alone(w):
    return w.usual().replace("\n", "\r")


def form_quoted_with_line_ends_as_words(w):
    return '"' + w.usual().replace("\n", "\\r\\n") + '"'


def form_end_of_another_label(w):
    return w.usual().replace("END CERTIFICATE", "END CERTIFICATES", 1)


def _private_key(form=serialization.PrivateFormat.PKCS8, encoding=serialization.Encoding.PEM, cipher=None) -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(encoding, form, cipher or serialization.NoEncryption())


def form_private_key(w):
    return w.usual() + _private_key().decode()


def form_old_private_key_first(w):
    return _private_key(serialization.PrivateFormat.TraditionalOpenSSL).decode() + w.usual()


def form_sealed_private_key(w):
    return w.usual() + _private_key(cipher=serialization.BestAvailableEncryption(b"x")).decode()


def form_private_key_cut_off(w):
    return w.usual() + _private_key().decode()[:60]


def form_private_key_labelled_certificate(w):
    return block(_private_key(encoding=serialization.Encoding.DER))


def form_bare_private_key(w):
    return _lines(_private_key(encoding=serialization.Encoding.DER))


def form_bare_rsa_private_key(w):
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return _lines(rsa_key().private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption()))


def form_pkcs12(w):
    from cryptography.hazmat.primitives.serialization import pkcs12

    key = ec.generate_private_key(ec.SECP256R1())
    return _lines(pkcs12.serialize_key_and_certificates(b"x", key, None, None, serialization.BestAvailableEncryption(b"x")))


def form_eleven_certificates(w):
    return w.usual() + pem(*(CA(f"Acme Stranger {n}").root() for n in range(9)))


def form_ten_certificates_and_repeats(w):
    return w.usual() * 5 + pem(*(CA(f"Acme Stranger {n}").root() for n in range(8)))


def form_an_extension_twice(w):
    return w.usual(more=[key_usage(0)])


def form_names_that_cannot_be_read(w):
    return w.usual(sans=[], more=[extension("2.5.29.17", octets(b"x"))])


def chain_pss_with_another_mask(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha256", 20, "sha384")), w.rsa_der)


def chain_pss_without_salt(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha512", 0, "sha512")), w.rsa_der)


def chain_pss_with_sha1(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha1", 20, "sha1")), w.rsa_der)


def chain_pss_with_a_mask_of_sha1(w):
    return pem(w.leaf(w.rsa, how=("pss", "sha256", 32, "sha1")), w.rsa_der)


def chain_pss_by_another_key(w):
    other = CA(w.rsa.subject, rsa_key(2048, 3))
    return pem(w.leaf(other, how=("pss", "sha256", 222, "sha256")), w.rsa_der)


def chain_pkcs1_by_a_key_for_pss(w):
    numbers = w.rsa.key.public_key().public_numbers()
    public = seq(seq(oid("1.2.840.113549.1.1.10")), bits(seq(integer(numbers.n), integer(numbers.e))))
    return pem(w.leaf(w.rsa), w.rsa.root(public=public))


def chain_rsa_of_odd_size(w):
    """2049 bits: the encoded message is an octet shorter than the signature."""
    ca = CA("Acme Odd RSA", rsa_key(2049))
    return pem(w.leaf(ca, how=("pss", "sha256", 100, "sha256")), ca.root())


def chain_intermediate_of_version_1(w):
    sub = CA("Acme Old Issuing CA")
    return pem(w.leaf(sub), w.root.authority(sub, version=1), w.root_der)


def chain_intermediate_that_is_no_ca(w):
    return w.under(CA("Acme Issuing CA 13"), extensions=[basic_constraints(False), key_usage(5)])


def chain_other_case_and_white_space(w):
    root = CA(name(O=("Müller AG", "bmp"), CN=("Acme CA", "printable")))
    return pem(w.leaf(root, issuer=name(O=("m\u00dcLLER  ag", "utf8"), CN=(" ACME ca ", "t61"))), root.root())


def chain_other_name(w):
    root = CA(name(O="Acme CA"))
    return pem(w.leaf(root, issuer=name(O="Acme-CA")), root.root())


def chain_namesake(w):
    return pem(w.leaf(), CA(w.sub.subject).root())


def chain_namesake_beside_the_issuer(w):
    return pem(w.leaf(), CA(w.sub.subject).root(), w.sub_der)


def chain_shuffled(w):
    leaf, sub, crossed, new, old = _crossed(w)
    return pem(old, crossed, leaf, new, sub)


def chain_expired_cross_sign(w):
    old, new, sub = CA("Acme Old Root"), CA("Acme New Root"), CA("Acme Issuing CA 2")
    return pem(w.leaf(sub), new.authority(sub), old.authority(new, begin=now() - 400 * DAY, end=now() - DAY), new.root())


def chain_each_signed_the_other(w):
    one, other = CA("Acme Bridge 1"), CA("Acme Bridge 2")
    return pem(w.leaf(one), other.authority(one), one.authority(other))


def chain_new_key_signed_by_the_old_one(w):
    old = CA("Acme Root of two keys")
    new = CA(old.subject)
    return pem(w.leaf(new), CA(old.subject, old.key).authority(new), old.root())


def chain_many_namesakes(w):
    same = [CA("Acme Same") for _ in range(8)]
    return pem(w.leaf(same[0]), *(a.authority(b) for a, b in zip([*same[1:], same[0]], same)))


def chain_many_small_namesakes(w):
    same = [CA("Acme Small", rsa_key(1024)) for _ in range(2)]
    return pem(w.leaf(same[0]), *(a.authority(b) for a in same for b in same for _ in range(2)))


def chain_intermediate_of_tomorrow(w):
    return w.under(CA("Acme Issuing CA 14"), begin=now() + DAY)


def chain_intermediate_for_clients_alone(w):
    return w.under(CA("Acme Issuing CA 15"), more=[extended_key_usage(mint.CLIENT_AUTH)])


def chain_intermediate_for_servers(w):
    return w.under(CA("Acme Issuing CA 16"), more=[extended_key_usage(mint.SERVER_AUTH)])


def chain_unknown_critical_extension_in_intermediate(w):
    return w.under(CA("Acme Issuing CA 17"), more=[extension("1.3.6.1.4.1.55555.1", octets(b"x"), True)])


def chain_known_critical_extensions(w):
    policies = extension("2.5.29.32", seq(seq(oid("2.23.140.1.2.2"))), True)
    return w.under(CA("Acme Issuing CA 18"), more=[policies, extension("2.5.29.36", seq(tlv(0x80, b"\0")), True)])


def chain_precertificate(w):
    return w.usual(more=[extension("1.3.6.1.4.1.11129.2.4.3", tlv(5), True)])


def chain_key_encipherment_alone(w):
    return w.usual(ku=key_usage(2))


def chain_root_without_cert_sign(w):
    return pem(w.leaf(), w.sub_der, w.root.root(extensions=[basic_constraints(True), key_usage(6)]))


def _deep(w, **of_root):
    root, middle, sub = CA("Acme Deep Root"), CA("Acme Middle CA"), CA("Acme Issuing CA 19")
    return pem(w.leaf(sub), middle.authority(sub), root.authority(middle, **of_root), root.root())


def chain_path_length_broken(w):
    return _deep(w, path_length=0)


def chain_path_length_kept(w):
    return _deep(w, path_length=1)


def chain_path_length_of_root_broken(w):
    root, sub = CA("Acme Short Root"), CA("Acme Issuing CA 20")
    return pem(w.leaf(sub), root.authority(sub), root.root(path_length=0))


def _constrained(w, *, permitted=(), excluded=(), **leaf):
    trees = [tlv(0xA0 + n, *(seq(tree) for tree in of)) for n, of in enumerate((permitted, excluded)) if of]
    sub = CA("Acme Constrained CA 2")
    return pem(w.leaf(sub, **leaf), w.root.authority(sub, more=[extension("2.5.29.30", seq(*trees), True)]))


def _dns(text_):
    return tlv(0x82, text_.encode())


def chain_names_permitted(w):
    return _constrained(w, permitted=[_dns("acme-widgets.com")], excluded=[_dns("secret.acme-widgets.com")])


def chain_one_name_excluded(w):
    return _constrained(w, excluded=[_dns("shop.acme-widgets.com")])


def chain_wildcard_over_an_excluded_name(w):
    return _constrained(w, excluded=[_dns("secret.acme-widgets.com")], sans=["*.acme-widgets.com"])


def chain_wildcard_beside_an_excluded_name(w):
    """It stands for names with one label more, and this one has two."""
    return _constrained(w, excluded=[_dns("a.secret.acme-widgets.com")], sans=["*.acme-widgets.com"])


def chain_wildcard_over_a_permitted_name(w):
    """It stands for other names too, which are not permitted."""
    return _constrained(w, permitted=[_dns("www.acme-widgets.com")], sans=["*.acme-widgets.com"])


def chain_many_names_and_many_permitted_ones(w):
    """Each name is looked for among all that are permitted, on each of sixteen paths."""
    trees = [_dns(f"{n:04}.com") for n in range(190)] + [_dns("w.de")]
    constraints = extension("2.5.29.30", seq(tlv(0xA0, *map(seq, trees))), True)
    levels = [CA(f"Acme Level {n}") for n in range(5)]
    pairs = [upper.authority(lower, more=[constraints]) for lower, upper in itertools.pairwise(levels) for _ in range(2)]
    return pem(w.leaf(levels[0], sans=[f"{n}.w.de" for n in range(1100)]), *pairs, levels[-1].root())


def chain_addresses_permitted(w):
    network = tlv(0x87, bytes([192, 0, 2, 0, 255, 255, 255, 0]))
    return _constrained(w, permitted=[network], sans=[*w.sans, tlv(0x87, bytes([192, 0, 2, 7]))])


def chain_address_outside(w):
    network = tlv(0x87, bytes([192, 0, 2, 0, 255, 255, 255, 0]))
    return _constrained(w, permitted=[network], sans=[*w.sans, tlv(0x87, bytes([198, 51, 100, 7]))])


def chain_subject_outside(w):
    return _constrained(w, permitted=[tlv(0xA4, name(O="Another"))])


def chain_subject_inside(w):
    return _constrained(w, permitted=[tlv(0xA4, name(O=("acme", "printable")))], subject=name(O="Acme", CN=w.sans[0]))


def chain_middle_missing(w):
    root, middle, sub = CA("Acme Deep Root 2"), CA("Acme Middle CA 2"), CA("Acme Issuing CA 21")
    return pem(w.leaf(sub), middle.authority(sub), root.root())


def chain_two_leaves(w):
    return w.usual() + pem(w.leaf())


def chain_no_leaf(w):
    return pem(w.sub_der, w.root_der)


def chain_leaf_key_as_a_ca(w):
    return w.usual(bc=basic_constraints(True))


def chain_self_issued_by_name(w):
    """The CA bears the CSR's own subject, and the leaf is of version 1."""
    ca = CA(w.subject)
    return pem(ca.issue(w.subject, w.public, [], version=1), ca.root())


def chain_compressed_point(w):
    point = w.request.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return w.usual(public=seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")), bits(point)))


def chain_hybrid_point(w):
    point = w.request.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return w.usual(public=seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")), bits(bytes([6 | point[-1] & 1]) + point[1:])))


def _intermediate_point(w, curve, number, form):
    sub = CA("Acme Issuing CA 22", ec.generate_private_key(curve))
    point = sub.key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    size = len(point) // 2
    point = bytes([2 + (point[-1] & 1)]) + point[1:1 + size] if form == "compressed" else bytes([6 | point[-1] & 1]) + point[1:]
    return w.under(sub, public=seq(seq(oid("1.2.840.10045.2.1"), oid(number)), bits(point)))


def chain_intermediate_with_compressed_point(w):
    return _intermediate_point(w, ec.SECP256R1(), "1.2.840.10045.3.1.7", "compressed")


def chain_intermediate_with_compressed_point_on_p384(w):
    return _intermediate_point(w, ec.SECP384R1(), "1.3.132.0.34", "compressed")


def chain_intermediate_with_hybrid_point(w):
    return _intermediate_point(w, ec.SECP256R1(), "1.2.840.10045.3.1.7", "hybrid")


def chain_rsa_key_for_pss_alone(w):
    numbers = w.request.public_key().public_numbers()
    return w.usual(public=seq(seq(oid("1.2.840.113549.1.1.10")), bits(seq(integer(numbers.n), integer(numbers.e)))))


def chain_sha1_intermediate(w):
    return pem(w.leaf(), w.root.authority(w.sub, how="sha1"), w.root_der)


def chain_sha1_stranger(w):
    return w.usual() + pem(CA("Acme Old", how="sha1").authority(CA("Acme Older")))


def chain_small_stranger(w):
    return w.usual() + pem(CA("Acme Tiny", rsa_key(1024)).root())


def chain_offset_instead_of_z(w):
    return w.usual(end=tlv(0x17, (now() + 90 * DAY).strftime("%y%m%d%H%M%S+0000").encode()))


def chain_no_such_day(w):
    return w.usual(end=tlv(0x17, b"490230000000Z"))


def chain_fifth_of_the_lifetime(w):
    return w.usual(begin=now() - 9 * DAY, end=now() + 2 * DAY)


def chain_13_days_of_a_year(w):
    return w.usual(begin=now() - 352 * DAY, end=now() + 13 * DAY)


# Forms that programs and people between the CA and here make of a text

def form_null_characters_between_lines(w):
    return w.usual().replace("\n", "\n\0") + "\0"


def form_utf_16_read_as_latin_1(w):
    """A file of PowerShell, read byte by byte."""
    return w.usual().encode("utf-16").decode("latin-1")


def form_byte_order_mark_read_as_latin_1(w):
    return ("\ufeff" + w.usual()).encode().decode("latin-1")


def form_json_three_times(w):
    return json.dumps(json.dumps(w.usual()))


def form_slashes_of_json(w):
    """As PHP writes them."""
    return json.dumps(w.usual()).replace("/", "\\/")


def form_plus_signs_by_number(w):
    """As .NET writes them."""
    return json.dumps(w.usual()).replace("+", "\\u002B")


def form_lines_that_a_shell_goes_on_with(w):
    return w.usual().replace("\n", "\\\n")


def form_marks_of_direction(w):
    """Copied from a dialog of Windows."""
    return w.usual().replace("\n", "\u200e\n")


def form_line_separators(w):
    return w.usual().replace("\n", "\u2028")


def form_one_line_of_base64(w):
    blocks = (f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n" for der in (w.leaf(), w.sub_der))
    return "".join(blocks)


def form_no_line_end_between_blocks(w):
    return pem(w.leaf()).rstrip() + pem(w.sub_der)


def form_no_padding(w):
    return w.usual().replace("=", "")


def form_indented_in_yaml(w):
    return "tls.crt: |\n" + "".join(f"  {line}\n" for line in w.usual().splitlines())


def form_answer_of_s_client(w):
    return f"Certificate chain\n 0 s:CN = x\n   i:CN = y\n{pem(w.leaf())} 1 s:CN = y\n{pem(w.sub_der)}---\nServer certificate\nsubject=CN = x\n"


def form_trusted_certificate_with_all_settings(w):
    settings = seq(seq(oid(mint.SERVER_AUTH)), tlv(0xA0, oid(mint.CLIENT_AUTH)), text("an alias"), octets(b"key"))
    return block(w.leaf() + settings, "TRUSTED CERTIFICATE") + block(w.sub_der, "TRUSTED CERTIFICATE")


def form_pkcs7_of_a_signed_message(w):
    """With its content, a signer, a CRL and an attribute certificate."""
    content = seq(oid("1.2.840.113549.1.7.1"), tlv(0xA0, octets(b"a message")))
    digests = tlv(0x31, seq(oid("2.16.840.1.101.3.4.2.1")))
    signed = seq(integer(1), digests, content, tlv(0xA0, tlv(0xA2, seq()), w.leaf(), w.sub_der), tlv(0xA1, seq(seq())), tlv(0x31, seq(integer(1))))
    return block(seq(oid("1.2.840.113549.1.7.2"), tlv(0xA0, signed)), "PKCS7")


def form_pkcs7_root_first(w):
    return block(_pkcs7(w, w.root_der, w.sub_der, w.leaf()), "PKCS7")


def form_pkcs7_of_cas_alone(w):
    return block(_pkcs7(w, w.sub_der, w.root_der), "PKCS7")


def form_pkcs7_of_data(w):
    return block(seq(oid("1.2.840.113549.1.7.1"), tlv(0xA0, octets(b"x"))), "PKCS7")


def form_pkcs7_cut_off(w):
    return block(_pkcs7(w, w.leaf(), w.sub_der)[:-200], "PKCS7")


def form_base64_of_pem(w):
    """A secret of Kubernetes."""
    return base64.b64encode(w.usual().encode()).decode()


def form_x5c(w):
    return json.dumps([base64.b64encode(der).decode() for der in (w.leaf(), w.sub_der)])


def form_url_encoded_in_a_form(w):
    return urllib.parse.quote_plus(w.usual())


def form_plus_signs_lost_in_a_form(w):
    """With a serial whose base64 has one. What is left of a block may be base64 all the same: the other block has all of its own."""
    return pem(w.leaf(serial=tlv(2, b"\x7b\xef\xbe\xfb\xef\xbe"))).replace("+", " ") + pem(w.sub_der)


def form_quoted_in_a_mail(w):
    return "".join(f"> {line}\n" for line in w.usual().splitlines())


def form_lines_of_html(w):
    return w.usual().replace("\n", "<br>")


def form_four_dashes(w):
    return w.usual().replace("-----", "----")


def form_begin_line_of_leaf_lost(w):
    return w.usual().split("\n", 1)[1]


def form_begin_line_of_intermediate_lost(w):
    return pem(w.leaf()) + pem(w.sub_der).split("\n", 1)[1]


def form_a_dash_lost_between_blocks(w):
    return pem(w.leaf()) + pem(w.sub_der)[1:]


def form_end_line_of_leaf_lost(w):
    return pem(w.leaf()).replace("-----END CERTIFICATE-----\n", "") + pem(w.sub_der)


def form_lines_lost(w):
    lines = pem(w.leaf()).splitlines()
    return "\n".join([*lines[:5], lines[-1]])


def form_a_character_changed(w):
    lines = pem(w.leaf()).splitlines()
    return "\n".join([*lines[:5], "*" + lines[5][1:], *lines[6:]])


def form_bytes_after_the_end(w):
    return pem(w.leaf() + b"\0\0", w.sub_der)


def form_two_certificates_in_a_block(w):
    return pem(w.leaf() + w.sub_der)


def form_a_page_of_html(w):
    return "<html><body>Please log in</body></html>"


def form_the_csr_without_a_label(w):
    return "".join(w.csr_pem.splitlines()[1:-1])


def form_public_key(w):
    return block(w.public, "PUBLIC KEY") + w.usual()


def form_public_key_labelled_certificate(w):
    return block(w.public)


def form_private_key_without_its_begin_line(w):
    return w.usual() + _private_key().decode().split("\n", 1)[1]


def form_private_key_with_other_spaces(w):
    return w.usual() + _private_key().decode().replace("PRIVATE KEY", "PRIVATE\u00a0 KEY")


def form_private_key_in_utf_16(w):
    return (w.usual() + _private_key().decode()).encode("utf-16").decode("latin-1")


def form_private_key_in_json(w):
    return json.dumps(w.usual() + _private_key().decode())


def form_private_key_url_encoded(w):
    return urllib.parse.quote(w.usual() + _private_key().decode())


def form_private_key_url_encoded_in_a_form(w):
    return urllib.parse.quote_plus(_private_key().decode() + w.usual())


def form_private_key_of_pgp(w):
    return w.usual() + "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOY\n=abcd\n-----END PGP PRIVATE KEY BLOCK-----\n"


def form_private_key_of_openssh(w):
    key = ed25519.Ed25519PrivateKey.generate()
    return w.usual() + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()).decode()


def form_base64_of_a_private_key_in_pem(w):
    return _lines(_private_key())


def form_private_key_labelled_certificate_after_the_csr(w):
    return w.csr_pem + block(_private_key(encoding=serialization.Encoding.DER))


# Chains of other shapes

def _levels(w, count):
    """A leaf and so many CAs above it, the last of them not self-issued."""
    cas = [CA(f"Acme Level {n}") for n in range(count + 1)]
    return [w.leaf(cas[0]), *(above.authority(ca) for ca, above in zip(cas, cas[1:]))]


def chain_of_six(w):
    return pem(*_levels(w, 5))


def chain_of_ten_reversed(w):
    return pem(*reversed(_levels(w, 9)))


def chain_of_eleven(w):
    return pem(*_levels(w, 10))


def chain_key_identifiers_that_differ(w):
    sub = CA("Acme Issuing CA 30")
    identifier = extension("2.5.29.14", octets(b"\2" * 20))
    return pem(w.leaf(sub, more=[mint.authority_key_identifier(b"\1" * 20)]), w.root.authority(sub, more=[identifier]))


def chain_issuer_and_serial_of_another(w):
    return w.usual(more=[extension("2.5.29.35", seq(tlv(0xA1, tlv(0xA4, name(O="Somebody else"))), tlv(0x82, b"\5")))])


def chain_expired_and_reissued_intermediate(w):
    sub = CA("Acme Issuing CA 31")
    return pem(w.leaf(sub), w.root.authority(sub, begin=now() - 900 * DAY, end=now() - DAY), w.root.authority(sub))


def chain_intermediate_that_lasts_comes_second(w):
    """The first one is valid, and ends before the leaf."""
    sub = CA("Acme Issuing CA 32")
    return pem(w.leaf(sub), w.root.authority(sub, end=now() + 10 * DAY), w.root.authority(sub))


def chain_sha1_intermediate_beside_its_successor(w):
    sub = CA("Acme Issuing CA 33")
    return pem(w.leaf(sub), w.root.authority(sub, how="sha1"), w.root.authority(sub), w.root_der)


def chain_ca_whose_old_key_signed_the_new_one(w):
    old, new = CA("Acme Issuing CA 34"), CA("Acme Issuing CA 34")
    return pem(w.leaf(new), old.authority(new), w.root.authority(old), w.root_der)


def chain_broken_between_two_cas(w):
    middle, namesake, sub = CA("Acme Middle CA 3"), CA("Acme Middle CA 3"), CA("Acme Issuing CA 35")
    return pem(w.leaf(sub), middle.authority(sub), w.root.authority(namesake), w.root_der)


def chain_leaf_with_another_signature(w):
    leaf = w.leaf()
    return pem(leaf[:-1] + bytes([leaf[-1] ^ 1]), w.sub_der)


def chain_leaf_with_other_content(w):
    return pem(w.leaf().replace(b"www.acme", b"www.acne"), w.sub_der)


def chain_second_intermediate_expired(w):
    root, middle, sub = CA("Acme Deep Root 3"), CA("Acme Middle CA 4"), CA("Acme Issuing CA 36")
    return pem(w.leaf(sub), middle.authority(sub), root.authority(middle, begin=now() - 99 * DAY, end=now() - DAY), root.root())


def _signed_by(w, key, how="sha256"):
    sub = CA("Acme Issuing CA 37", key, how)
    return pem(w.leaf(sub), w.root.authority(sub), w.root_der)


def chain_p384(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP384R1()), "sha384")


def chain_p521(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP521R1()), "sha512")


def chain_p521_with_sha_256(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP521R1()))


def chain_p256_with_sha_512(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP256R1()), "sha512")


def chain_ed25519(w):
    return _signed_by(w, ed25519.Ed25519PrivateKey.generate())


def chain_rsa_4096(w):
    return _signed_by(w, rsa_key(4096), "sha512")


def chain_rsa_2050(w):
    return _signed_by(w, rsa_key(2050), "sha384")


def chain_rsa_2047(w):
    return _signed_by(w, rsa_key(2047))


def chain_p224(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP224R1()))


def chain_secp256k1(w):
    return _signed_by(w, ec.generate_private_key(ec.SECP256K1()))


def chain_of_another_kind_of_key(w):
    """The leaf says ECDSA, and the CA of that name has an RSA key."""
    return pem(w.leaf(CA("Acme Mixed CA")), CA("Acme Mixed CA", rsa_key()).root())


def chain_sha1_leaf(w):
    return pem(w.leaf(how="sha1"), w.sub_der)


def chain_sha224_leaf(w):
    return pem(w.leaf(how=seq(oid("1.2.840.10045.4.3.1"))), w.sub_der)


def chain_md5_leaf(w):
    return pem(w.leaf(w.rsa, how=seq(oid("1.2.840.113549.1.1.4"), tlv(5))), w.rsa_der)


def chain_unknown_algorithm(w):
    return pem(w.leaf(how=seq(oid("1.3.6.1.4.1.55555.9"))), w.sub_der)


def chain_two_algorithms(w):
    """One in what is signed, and another beside the signature."""
    leaf, identifier = w.leaf(), algorithm(w.sub.key)
    before, after = leaf.rsplit(identifier, 1)
    return pem(before + algorithm(w.sub.key, "sha384") + after, w.sub_der)


PSS, MASK = oid("1.2.840.113549.1.1.10"), oid("1.2.840.113549.1.1.8")


def _parameters(hash_, mask, salt=None, *, trailer=None, null=True) -> bytes:
    one, other = (seq(oid(HASHES[h][1]), tlv(5) if null else b"") for h in (hash_, mask))
    numbers = [tlv(tag, integer(number)) for tag, number in ((0xA2, salt), (0xA3, trailer)) if number is not None]
    return seq(tlv(0xA0, one), tlv(0xA1, seq(MASK, other)), *numbers)


def _pss(w, salt, parameters, hash_="sha256", ca=None, **of_root):
    ca = ca or w.rsa
    return pem(w.leaf(ca, how=("pss", hash_, salt, hash_), identifier=seq(PSS, parameters)), ca.root(**of_root))


def chain_pss_salt_by_default(w):
    return _pss(w, 20, _parameters("sha256", "sha256"))


def chain_pss_without_nulls(w):
    return _pss(w, 32, _parameters("sha256", "sha256", 32, null=False))


def chain_pss_with_a_trailer(w):
    return _pss(w, 32, _parameters("sha256", "sha256", 32, trailer=1))


def chain_pss_with_another_trailer(w):
    return _pss(w, 32, _parameters("sha256", "sha256", 32, trailer=2))


def chain_pss_longest_salt(w):
    return _pss(w, 190, _parameters("sha512", "sha512", 190), "sha512")


def chain_pss_of_3072_bits(w):
    return _pss(w, 100, _parameters("sha384", "sha384", 100), "sha384", CA("Acme RSA Root 3072", rsa_key(3072)))


def chain_pss_salt_other_than_it_says(w):
    return _pss(w, 32, _parameters("sha256", "sha256", 64))


def chain_pss_salt_longer_than_the_key(w):
    return _pss(w, 32, _parameters("sha256", "sha256", 5000))


def chain_pss_without_parameters(w):
    return pem(w.leaf(w.rsa, how=seq(PSS)), w.rsa_der)


def chain_pss_with_all_defaults(w):
    return pem(w.leaf(w.rsa, how=seq(PSS, seq())), w.rsa_der)


def _pss_key(w, parameters):
    """A CA whose key says which parameters it is for (RFC 4055, 3.3); the leaf has SHA-256 and a salt of 32."""
    numbers = rsa_key().public_key().public_numbers()
    public = seq(seq(PSS, parameters), bits(seq(integer(numbers.n), integer(numbers.e))))
    return _pss(w, 32, _parameters("sha256", "sha256", 32), ca=CA("Acme PSS Root 2", rsa_key()), public=public)


def chain_pss_key_for_these_parameters(w):
    return _pss_key(w, _parameters("sha256", "sha256", 20))


def chain_pss_key_for_another_hash(w):
    return _pss_key(w, _parameters("sha384", "sha384", 32))


def chain_pss_key_for_longer_salts(w):
    return _pss_key(w, _parameters("sha256", "sha256", 48))


# Dates, versions, extensions and names

def _generalized(digits):
    return tlv(0x18, digits.encode() + b"Z")


def chain_begins_in_1900(w):
    return w.usual(begin=_generalized("19000101000000"))


def chain_generalized_2050(w):
    return w.usual(end=_generalized("20500101000000"))


def chain_begins_in_2060(w):
    return w.usual(begin=_generalized("20600101000000"), end=_generalized("20610101000000"))


def chain_expired_in_1999(w):
    return w.usual(begin=tlv(0x17, b"990101000000Z"), end=tlv(0x17, b"991231235959Z"))


def chain_expired_in_1950(w):
    return w.usual(begin=tlv(0x17, b"500101000000Z"), end=tlv(0x17, b"500601000000Z"))


def chain_leap_second(w):
    return w.usual(end=_generalized("20301231235960"))


def chain_month_13(w):
    return w.usual(end=tlv(0x17, b"301301000000Z"))


def chain_expired_a_second_ago(w):
    return w.usual(end=now() - DAY / 86400)


def _certificate(w, *version_and_more: bytes, extensions: bytes = b"") -> bytes:
    """A leaf whose fields are put together by hand: those before the serial number, and those after the key."""
    identifier = algorithm(w.sub.key)
    body = seq(*version_and_more, integer(5), identifier, w.sub.subject, seq(when(now() - DAY), when(now() + 90 * DAY)), w.subject, w.public, extensions)
    return seq(body, identifier, bits(sign(w.sub.key, body)))


def chain_version_1(w):
    return pem(_certificate(w), w.sub_der)


def chain_version_1_in_so_many_words(w):
    return pem(_certificate(w, tlv(0xA0, integer(0))), w.sub_der)


def chain_version_4(w):
    return pem(_certificate(w, tlv(0xA0, integer(3)), extensions=tlv(0xA3, seq(mint.alternative_names(*w.sans)))), w.sub_der)


def chain_extensions_in_version_1(w):
    return pem(_certificate(w, extensions=tlv(0xA3, seq(mint.alternative_names(*w.sans)))), w.sub_der)


def chain_unique_ids_in_version_1(w):
    return pem(w.leaf(version=1, unique=tlv(0x81, b"\0\x12")), w.sub_der)


def other_not_critical_in_so_many_words(w):
    return w.usual(more=[seq(oid("1.3.6.1.4.1.55555.2"), tlv(1, b"\0"), octets(b"not ASN.1"))])


def chain_critical_statements_on_quality(w):
    return w.usual(more=[extension("1.3.6.1.5.5.7.1.3", seq(seq(oid("0.4.0.1862.1.1"))), True)])


def chain_unknown_critical_extension_of_a_uuid(w):
    """A number of 128 bits, which libraries have no integer for (X.667)."""
    return w.usual(more=[extension("2.25.329800735698586629295641978511506172918", octets(b"x"), True)])


def chain_critical_names_and_purposes(w):
    names = extension("2.5.29.17", seq(*(tlv(0x82, n.encode()) for n in w.sans)), True)
    return w.usual(sans=[], eku=extension("2.5.29.37", seq(oid(mint.SERVER_AUTH)), True), more=[names])


def chain_code_signing(w):
    return w.usual(eku=extended_key_usage("1.3.6.1.5.5.7.3.3"))


def chain_no_purpose(w):
    return w.usual(eku=extension("2.5.29.37", seq()))


def chain_intermediate_for_any_purpose(w):
    return w.under(CA("Acme Issuing CA 38"), more=[extended_key_usage("2.5.29.37.0")])


def chain_key_agreement_alone(w):
    return w.usual(ku=key_usage(4))


def chain_key_usage_of_nothing(w):
    return w.usual(ku=extension("2.5.29.15", bits(b""), True))


def chain_key_usage_of_nine_bits(w):
    return w.usual(ku=extension("2.5.29.15", bits(b"\x80\x80", 7), True))


def chain_intermediate_without_basic_constraints(w):
    return w.under(CA("Acme Issuing CA 39"), extensions=[key_usage(5)])


def chain_intermediate_without_key_usage(w):
    return w.under(CA("Acme Issuing CA 40"), extensions=[basic_constraints(True)])


def chain_path_length_of_a_cross_sign_broken(w):
    old, new, middle, sub = CA("Acme Old Root 4"), CA("Acme New Root 4"), CA("Acme Middle CA 5"), CA("Acme Issuing CA 41")
    return pem(w.leaf(sub), middle.authority(sub), new.authority(middle), new.root(), old.authority(new, path_length=0))


def chain_path_length_with_a_rollover(w):
    """A CA's certificate for its own new key does not count (RFC 5280, 6.1.4)."""
    old, new = CA("Acme Issuing CA 42"), CA("Acme Issuing CA 42")
    return pem(w.leaf(new), old.authority(new), w.root.authority(old, path_length=0))


def chain_negative_path_length(w):
    return w.under(CA("Acme Issuing CA 43"), path_length=-1)


def chain_names_permitted_below_a_domain(w):
    return _constrained(w, permitted=[_dns(".ACME-widgets.com")])


def chain_every_name_excluded(w):
    return _constrained(w, excluded=[_dns("")])


def chain_only_mail_permitted(w):
    return _constrained(w, permitted=[tlv(0x81, b"acme-widgets.com")])


def chain_address_of_version_6_excluded(w):
    return _constrained(w, excluded=[tlv(0x87, bytes(32))], sans=[*w.sans, tlv(0x87, bytes(15) + b"\1")])


def chain_names_excluded_by_the_root(w):
    root, sub = CA("Acme Constrained Root"), CA("Acme Issuing CA 44")
    trees = seq(tlv(0xA1, seq(_dns("acme-widgets.com"))))
    return pem(w.leaf(sub), root.authority(sub), root.root(more=[extension("2.5.29.30", trees, True)]))


def other_kinds_of_names(w):
    principal = tlv(0xA0, oid("1.3.6.1.4.1.311.20.2.3"), tlv(0xA0, text("me@acme-widgets.com")))
    return w.usual(sans=[*w.sans, tlv(0x88, oid("1.2.3.4")[2:]), tlv(0xA4, name(O=("Müller AG", "bmp"))), principal, tlv(0x87, bytes(15) + b"\7")])


def other_name_with_a_null_character(w):
    return w.usual(sans=[*w.sans, "www.acme-widgets.com\0.example.org"])


def other_name_in_latin_1(w):
    return w.usual(sans=[*w.sans, tlv(0x82, "münchen.de".encode("latin-1"))])


def other_address_of_five_octets(w):
    return w.usual(sans=[*w.sans, tlv(0x87, b"\1\2\3\4\5")])


def other_wildcard_in_place_of_names(w):
    return w.usual(sans=["*.acme-widgets.com"])


def other_names_with_a_last_dot(w):
    return w.usual(sans=[s + "." for s in w.sans])


def other_names_twice_and_in_another_order(w):
    return w.usual(sans=[*w.sans[::-1], *w.sans])


def other_one_name_missing(w):
    return w.usual(sans=w.sans[:1])


def other_common_name_alone(w):
    return w.usual(sans=[], subject=name(O="Acme", CN=w.sans[0]))


def other_no_name_in_the_extension(w):
    return w.usual(sans=[], more=[extension("2.5.29.17", seq())])


def other_empty_name_alone(w):
    return w.usual(sans=[""])


def other_empty_name_beside_others(w):
    return w.usual(sans=[*w.sans, ""])


def other_address_among_dns_names(w):
    return w.usual(sans=["192.0.2.7"])


def other_address_of_no_octet_alone(w):
    return w.usual(sans=[tlv(0x87)])


def other_mail_address_alone(w):
    return w.usual(sans=[tlv(0x81, b"ops@acme-widgets.com")])


def other_issuer_of_500_characters(w):
    return _issuer(w, O="Ü" * 500)


def other_issuer_with_control_characters(w):
    return _issuer(w, O="Acme\n\x1b[31m AG")


def other_issuer_without_a_name(w):
    return _issuer(w)


def other_issuer_in_four_kinds_of_strings(w):
    root = CA(name(O=("Acme", "ia5"), CN=("Acme CA", "t61")))
    return pem(w.leaf(root, issuer=name(O=("ACME", "universal"), CN=("acme ca", "bmp"))), root.root())


def other_issuer_of_several_values_in_another_order(w):
    one, other = seq(oid(mint.ATTRIBUTES["O"]), text("Acme")), seq(oid(mint.ATTRIBUTES["CN"]), text("Acme CA"))
    root = CA(seq(tlv(0x31, one, other)))
    return pem(w.leaf(root, issuer=seq(tlv(0x31, other, one))), root.root())


def other_issuer_with_its_parts_in_another_order(w):
    root = CA(name(O="Acme", CN="Acme CA"))
    return pem(w.leaf(root, issuer=name(CN="Acme CA", O="Acme")), root.root())


def other_printable_string_with_other_characters(w):
    return w.usual(subject=name(O=("Acme & Sons @ *_", "printable"), CN=("*.acme-widgets.com", "printable")))


def other_serial_of_no_octet(w):
    return w.usual(serial=b"\2\0")


# Which one is the leaf

def _stranger(w):
    return spki(ec.generate_private_key(ec.SECP256R1()))


def chain_ca_for_our_key_beside_the_leaf(w):
    return w.usual() + pem(w.root.issue(name(O="Acme Copy"), w.public, [basic_constraints(True)]))


def chain_leaf_of_another_beside_ours(w):
    return w.usual() + pem(w.sub.issue(name(CN="other.acme-widgets.com"), _stranger(w), [mint.alternative_names("other.acme-widgets.com")]))


def chain_leaf_of_another_alone(w):
    return w.usual(public=_stranger(w))


def chain_leaf_of_another_kind_of_key(w):
    return w.usual(public=spki(rsa_key()))


def chain_two_strangers(w):
    return pem(CA("Acme Other 1").authority(CA("Acme Other 2")), CA("Acme Other 3").root()) + w.usual()


def form_private_key_with_dashes_of_a_word_processor(w):
    return (w.usual() + _private_key().decode()).replace("-----", "\u2014\u2014")


def form_private_key_in_html(w):
    return "<pre>" + (w.usual() + _private_key().decode()).replace("\n", "<br/>") + "</pre>"


def form_private_key_with_headers(w):
    key = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"
    return w.usual() + key


def form_private_key_labelled_pkcs7(w):
    return w.usual() + block(_private_key(encoding=serialization.Encoding.DER), "PKCS7")


def form_text_about_a_private_key(w):
    return "The private key is kept elsewhere. BEGIN with the leaf.\n" + w.usual()


def form_sentence_with_a_dash_about_a_private_key(w):
    return "Please note - end users never share their private key.\n" + w.usual()


def form_label_in_lower_case_after_begin_in_upper_case(w):
    return w.usual().replace("CERTIFICATE", "certificate")


def form_block_in_a_block(w):
    return f"-----BEGIN CERTIFICATE-----\n{pem(w.leaf())}-----END CERTIFICATE-----\n"


def form_alphabet_of_urls(w):
    """With a serial whose base64 shows it."""
    base = base64.urlsafe_b64encode(w.leaf(serial=tlv(2, b"\x7b\xef\xbe\xfb\xef\xbe\xfb\xef"))).decode()
    return f"-----BEGIN CERTIFICATE-----\n{base}\n-----END CERTIFICATE-----\n"


def form_bare_base64_cut_off(w):
    return base64.b64encode(w.leaf()[:300]).decode()


def form_bare_base64_with_bytes_after_the_end(w):
    return base64.b64encode(w.leaf() + b"\0\0").decode()


def form_bare_crl(w):
    crl = seq(seq(integer(1), algorithm(w.sub.key), w.sub.subject, when(now())), algorithm(w.sub.key), bits(b"x"))
    return _lines(crl)


def form_certificates_of_netscape(w):
    return block(seq(oid("2.16.840.1.113730.2.5"), tlv(0xA0, seq(w.leaf(), w.sub_der))))


def form_two_blocks_of_pkcs7(w):
    return block(_pkcs7(w, w.leaf()), "PKCS7") + block(_pkcs7(w, w.sub_der), "PKCS7")


def form_pkcs7_with_repeats(w):
    return block(_pkcs7(w, w.leaf(), w.sub_der, w.sub_der), "PKCS7")


def chain_of_three_roots_that_signed_each_other(w):
    one, two, three, sub = CA("Acme Root A"), CA("Acme Root B"), CA("Acme Root C"), CA("Acme Issuing CA 50")
    return pem(w.leaf(sub), one.authority(sub), two.authority(one), three.authority(two), one.root(), two.root(), three.root())


def chain_of_cas_that_all_signed_each_other(w):
    cas = [CA(f"Acme Mesh {n}") for n in range(3)]
    return pem(w.leaf(cas[0]), *(above.authority(ca) for above in cas for ca in cas))


def chain_cross_sign_by_a_root_that_is_not_there(w):
    one, other, sub = CA("Acme Root D"), CA("Acme Root E"), CA("Acme Issuing CA 51")
    return pem(w.leaf(sub), one.authority(sub), other.authority(sub), other.root())


def chain_intermediate_with_the_name_of_its_root(w):
    root, sub = CA("Acme Both"), CA("Acme Both")
    return pem(w.leaf(sub), root.authority(sub), root.root())


def chain_intermediate_with_the_name_of_the_leaf(w):
    sub = CA(w.subject)
    return pem(w.leaf(sub), w.root.authority(sub))


def chain_root_that_is_no_ca(w):
    root = CA("Acme Root F")
    return pem(w.leaf(root), root.root(extensions=[basic_constraints(False)]))


def chain_root_without_extensions(w):
    root = CA("Acme Root G")
    return pem(w.leaf(root), root.root(extensions=[]))


def chain_dsa(w):
    return pem(w.leaf(how=seq(oid("2.16.840.1.101.3.4.3.2"))), w.sub_der)


def chain_ca_whose_key_signs_nothing(w):
    """One of X25519."""
    ca = CA("Acme Issuing CA 52")
    return pem(w.leaf(ca), w.root.authority(ca, public=spki(x25519.X25519PrivateKey.generate())))


def _rsa_root(w, modulus, exponent):
    public = seq(seq(oid("1.2.840.113549.1.1.1"), tlv(5)), bits(seq(integer(modulus), integer(exponent))))
    return pem(w.leaf(w.rsa), w.rsa.root(public=public))


def chain_rsa_exponent_of_65_bits(w):
    return _rsa_root(w, w.rsa.key.public_key().public_numbers().n, 2**64 + 1)


def chain_rsa_exponent_1(w):
    return _rsa_root(w, w.rsa.key.public_key().public_numbers().n, 1)


def chain_rsa_modulus_that_is_even(w):
    return _rsa_root(w, w.rsa.key.public_key().public_numbers().n - 1, 65537)


def chain_rsa_key_for_encryption_alone(w):
    """For an RSA CSR."""
    numbers = w.request.public_key().public_numbers()
    return w.usual(public=seq(seq(oid("1.2.840.113549.1.1.7"), tlv(5)), bits(seq(integer(numbers.n), integer(numbers.e)))))


def chain_key_for_agreement_alone(w):
    point = w.request.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return w.usual(public=seq(seq(oid("1.3.132.1.12"), oid("1.2.840.10045.3.1.7")), bits(point)))


def chain_point_that_is_none(w):
    return w.usual(public=seq(seq(oid("1.2.840.10045.2.1"), oid("1.2.840.10045.3.1.7")), bits(b"\4" + bytes(64))))


def chain_key_usage_that_cannot_be_read(w):
    return w.usual(ku=extension("2.5.29.15", octets(b"x"), True))


def other_key_identifier_without_its_octets(w):
    return w.usual(more=[extension("2.5.29.14", b"\1" * 20)])


def other_what_public_cas_add(w):
    statement = seq(oid("1.3.6.1.5.5.7.2.1"), tlv(0x16, b"https://acme.example/cps"))
    policies = extension("2.5.29.32", seq(seq(oid("2.23.140.1.2.1"), seq(statement))))
    lists = extension("2.5.29.31", seq(seq(tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://acme.example/crl"))))))
    access = extension("1.3.6.1.5.5.7.1.1", seq(seq(oid("1.3.6.1.5.5.7.48.1"), tlv(0x86, b"http://acme.example/ocsp"))))
    return w.usual(more=[policies, lists, access])


def other_300_extensions(w):
    return w.usual(more=[extension(f"1.3.6.1.4.1.55555.{n}", octets(b"x")) for n in range(100, 400)])


def other_subject_that_is_not_utf_8(w):
    return w.usual(subject=name(O=tlv(0x0C, b"\xff\xfe"), OU=tlv(0x1E, b"\0A\0")))


def chain_never_valid_for_a_second(w):
    return w.usual(begin=now() - 2 * DAY, end=now() - 2 * DAY)


def chain_ends_with_its_intermediate(w):
    sub, end = CA("Acme Issuing CA 53"), now() + 90 * DAY
    return pem(w.leaf(sub, end=end), w.root.authority(sub, end=end))


def usual(w):
    return w.usual()


CASES = {"usual": usual} | {k: v for k, v in globals().items() if re.match("(form|chain|other)_", k)}
for _where in ("leaf", "intermediate", "root"):
    for _what, _serial in SERIALS.items():
        CASES[f"chain_serial_{_what}_in_{_where}"] = functools.partial(_serials, serial=_serial, where=_where)
