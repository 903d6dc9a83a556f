"""Uploads as CAs, converters and users really send them, made for the CSR at hand.

Each function below is a case of chain_cases.json: it takes a Workshop and returns the text of `certificate`. Names begin
with what they are about: the form in which certificates come, the chain and its signatures, or something other."""
import base64
import functools
import re
import textwrap

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa

import mint
from mint import CA, DAY, basic_constraints, bits, block, extended_key_usage, extension, integer, key_usage, name, now, octets, oid, pem, seq, spki, text, tlv

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


def usual(w):
    return w.usual()


CASES = {"usual": usual} | {k: v for k, v in globals().items() if re.match("(form|chain|other)_", k)}
for _where in ("leaf", "intermediate", "root"):
    for _what, _serial in SERIALS.items():
        CASES[f"chain_serial_{_what}_in_{_where}"] = functools.partial(_serials, serial=_serial, where=_where)
