"""Many keys, judged as somebody would who wants to break them: none is there twice, none shares a factor, none is of a weak form."""

import math

import pytest
from cryptography import x509
from harness import Csrd
from test_faults import settle

# Of the curve P-256.
P, B = 2**256 - 2**224 + 2**192 + 2**96 - 1, 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
SMALL_PRIMES = [n for n in range(3, 5000, 2) if all(n % m for m in range(3, math.isqrt(n) + 1, 2))]
# Modulo these, the keys of ROCA (CVE-2017-15361) are powers of 65537.
ROCA_PRIMES = [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157]
ROCA_RESIDUES = {prime: {pow(65537, power, prime) for power in range(prime)} for prime in ROCA_PRIMES}


def is_roca(n: int) -> bool:
    return all(n % prime in residues for prime, residues in ROCA_RESIDUES.items())


def is_square(n: int) -> bool:
    return n >= 0 and math.isqrt(n) ** 2 == n


def has_near_factors(n: int, rounds: int = 100) -> bool:
    """Fermat's way: factors that are near each other are found at once."""
    a = math.isqrt(n) + 1
    return any(is_square((a + step) ** 2 - n) for step in range(rounds))


def shares_a_factor(moduli: list[int]) -> bool:
    product = math.prod(moduli)
    return any(math.gcd(n, product // n % n) != 1 for n in moduli)


def judge(csrd: Csrd, rsa_keys: int, ec_keys: int) -> str:
    zone = csrd.tenant(quota=100_000)
    for _ in range(rsa_keys):
        zone.create(key_type="rsa2048")
    for _ in range(ec_keys):
        zone.create(key_type="p256v1")
    rows = settle(zone, 300)
    assert {row["status"] for row in rows} == {"active"}
    requests = [x509.load_pem_x509_csr(row["csr"].encode()) for row in rows]
    assert all(request.is_signature_valid for request in requests)
    moduli, points = [], []
    for row, request in zip(rows, requests, strict=True):
        numbers = request.public_key().public_numbers()
        moduli.append(numbers.n) if row["key_type"] == "rsa2048" else points.append((numbers.x, numbers.y))
        assert row["key_type"] == "p256v1" or (numbers.e == 65537 and numbers.n.bit_length() == 2048)
    assert (len(set(moduli)), len({x for x, _ in points})) == (rsa_keys, ec_keys)
    assert all((y * y - (x**3 - 3 * x + B)) % P == 0 for x, y in points)
    assert not shares_a_factor(moduli)
    for n in moduli:
        assert all(n % prime for prime in SMALL_PRIMES) and not has_near_factors(n) and not is_roca(n), n
    return f"{rsa_keys} keys of RSA and {ec_keys} of P-256: none weak"


@pytest.mark.parametrize("pool", [0, 8], ids=["fresh keys", "keys from the pool"])
def test_no_key_is_weak_or_there_twice(new_csrd, record_property, pool):
    record_property("figures", judge(new_csrd("--key-pool-size", str(pool)).start(), 12, 60))


@pytest.mark.slow
def test_none_of_many_keys_is_weak_or_there_twice(new_csrd, record_property):
    record_property("figures", judge(new_csrd("--max-pending", "100000").start(), 300, 2000))


def test_weak_keys_are_recognized():
    """Else the rest would prove nothing."""
    near, next_prime, far = 2**521 - 1, 2**521 - 1 + 2, 2**127 - 1
    assert has_near_factors(near * next_prime) and not has_near_factors(near * far)
    assert shares_a_factor([near * far, near * (2**607 - 1)]) and not shares_a_factor([near, far])
    assert is_roca(pow(65537, 12345, math.prod(ROCA_PRIMES))) and not is_roca(2 * far)
