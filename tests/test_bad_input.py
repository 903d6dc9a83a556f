"""Whatever a body holds: an answer in the envelope, nothing written, and the service goes on."""

import json
import random

import pytest
from harness import Answer, bearer, check_envelope, codes, faults, send, send_raw, subject, wait_until

BODY_LIMIT = 64 * 1024
JSON = {"Content-Type": "application/json"}
pytestmark = pytest.mark.usefixtures("unharmed")


def post(zone, content: bytes | str, **headers) -> Answer:
    content = content if isinstance(content, bytes) else content.encode()
    return zone.request("POST", content=content, headers=JSON | headers)


# Size


@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 1024 * 1024])
def test_a_body_that_is_too_large_is_refused(service, zone, size):
    body = json.dumps(subject()).encode().ljust(size)
    answer = send(service, "POST", zone.path, headers=bearer(zone) | JSON, body=body)
    assert (answer.status, codes(answer.envelope)) == (413, [1467])


@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 1024 * 1024])
def test_a_body_in_chunks_that_is_too_large_is_refused(service, zone, size):
    body = json.dumps(subject()).encode().ljust(size)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[n : n + 8000]), body[n : n + 8000]) for n in range(0, size, 8000)) + b"0\r\n\r\n"
    head = f"POST {zone.path} HTTP/1.1\r\nHost: {service.address}\r\nAuthorization: Bearer {zone.token}\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = send_raw(service, head.encode() + chunks, "POST")
    assert response is not None
    assert (response[0], codes(check_envelope(*response))) == (413, [1467])


def test_the_size_of_the_body_is_not_judged_before_the_token(service, zone):
    body = b" " * 1024 * 1024
    assert codes(send(service, "POST", zone.path, headers=JSON, body=body).envelope) == [1402]
    assert codes(send(service, "POST", zone.path, headers=JSON | {"Authorization": "Bearer x"}, body=body).envelope) == [1001]
    # But before the access.
    other = service.tenant("zone")
    assert codes(send(service, "POST", zone.path, headers=JSON | bearer(other), body=body).envelope) == [1467]


def test_a_body_of_the_largest_size_is_read(service):
    zone = service.tenant("zone")
    assert post(zone, json.dumps(subject()).ljust(BODY_LIMIT)).status == 201


def test_ten_thousand_sans_are_refused(zone):
    long = json.dumps(subject(sans=[f"n{n}.acme-widgets.com" for n in range(10_000)]))
    assert len(long) > BODY_LIMIT
    assert codes(post(zone, long).envelope) == [1467]
    short = json.dumps(subject(sans=["a.b"] * 10_000), separators=(",", ":"))
    assert len(short) <= BODY_LIMIT
    assert codes(post(zone, short).envelope) == [1463]


def test_too_many_sans_are_not_judged_but_the_other_fields_are(zone):
    assert faults(zone.request("POST", json=subject(sans=["-"] * 101)).envelope) == [(1463, "/sans")]
    assert codes(zone.request("POST", json=subject(sans=["-"] * 101, state="")).envelope) == [1406, 1463]
    assert codes(zone.request("POST", json=subject(sans=["-"] * 100)).envelope) == [1412] * 100


def test_a_header_of_100_kb_is_refused_and_harms_nobody(service, zone):
    for name in ("X-Long", "Authorization", "X-Request-Id"):
        head = f"GET {zone.path} HTTP/1.1\r\nHost: {service.address}\r\n{name}: {'x' * 100_000}\r\n\r\n"
        response = send_raw(service, head.encode())
        assert response is None or 400 <= response[0] < 500, response


def test_a_thousand_headers_and_a_target_of_100_kb_are_refused_and_harm_nobody(service, zone):
    many = "".join(f"X-{n}: y\r\n" for n in range(1000))
    long = "x" * 100_000
    for target, headers in ((zone.path, many), (f"{zone.path}/{long}", ""), (f"{zone.path}?search={long}", ""), (f"/{long}", "")):
        response = send_raw(service, f"GET {target} HTTP/1.1\r\nHost: {service.address}\r\n{headers}\r\n".encode())
        assert response is None or 400 <= response[0] < 500, response


# JSON

NOT_JSON = {
    "empty": b"",
    "white space": b" \n",
    "cut off": b'{"country": "US"',
    "two values": b'{"country": "US"} {}',
    "a trailing comma": b'{"country": "US",}',
    "single quotes": b"{'country': 'US'}",
    "a comment": b'{"country": "US"} // no',
    "NaN": b'{"x": NaN}',
    "invalid UTF-8": b'{"country": "US", "state": "\xff\xfe"}',
    "an overlong encoding": b'{"state": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"state": "\xed\xa0\x80"}',
    "invalid UTF-8 in an ignored member": b'{"x": "\xff"}',
    "invalid UTF-8 in a name": b'{"\xff": 1}',
    "UTF-16": '{"country": "US"}'.encode("utf-16"),
    "a raw NUL in a string": b'{"state": "a\x00b"}',
    "a raw newline in a string": b'{"state": "a\nb"}',
    "a NUL after the value": b"{}\x00",
    "a lone high surrogate": b'{"state": "\\ud800"}',
    "a lone low surrogate": b'{"state": "\\udc00"}',
    "surrogates in the wrong order": b'{"state": "\\udc00\\ud800"}',
    "a lone surrogate in an ignored member": b'{"x": ["\\ud800"]}',
    "a lone surrogate in a name": b'{"\\ud800": 1}',
    "an unknown escape": b'{"state": "\\x41"}',
    "60,000 open arrays": b"[" * 60_000,
    "60,000 open objects": b'{"a":' * 12_000,
    "deep arrays": b"[" * 30_000 + b"]" * 30_000,
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"5",
    "true": b"true",
    "null": b"null",
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_no_json_object_is_1400_alone(zone, body):
    assert faults(post(zone, body).envelope) == [(1400, None)]


def test_100_000_open_brackets_are_refused(zone):
    assert codes(post(zone, b"[" * 100_000).envelope) == [1467]


def test_a_deep_value_that_nobody_reads_is_harmless(zone):
    deep = '{"country": "", "x": ' + "[" * 30_000 + "]" * 30_000 + "}"
    answer = post(zone, deep)
    assert answer.status == 400


@pytest.mark.parametrize(
    "member",
    [
        '"country": "US"',
        '"country": null',
        r'"c\u006funtry": "US"',
        '"x": 1, "x": 1',
        '"x": {"y": 1, "y": 2}',
        '"x": [1, [{"y": 1, "z": 2, "y": 1}]]',
        r'"x": {"y": 1, "\u0079": 2}',
        '"": 1, "": 2',
    ],
)
def test_a_repeated_key_anywhere_is_1400_alone(zone, member):
    body = json.dumps(subject())[:-1] + ", " + member + "}"
    json.loads(body)
    assert faults(post(zone, body).envelope) == [(1400, None)]


def test_a_key_repeated_in_another_object_is_none(service):
    zone = service.tenant("zone")
    assert post(zone, json.dumps(subject() | {"x": [{"country": 1}, {"country": 1}]})).status == 201


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json-seq", "text/json", "json", "\xff"],
)
def test_another_content_type_is_1400_alone(zone, content_type):
    headers = {"Content-Type": content_type.encode("latin-1")}
    assert faults(zone.request("POST", content=json.dumps(subject()), headers=headers).envelope) == [(1400, None)]


def test_no_content_type_is_1400_alone(service, zone):
    answer = send(service, "POST", zone.path, headers=bearer(zone), body=json.dumps(subject()).encode())
    assert faults(answer.envelope) == [(1400, None)]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json;charset=UTF-8"])
def test_json_with_parameters_and_in_any_case_is_json(service, content_type):
    zone = service.tenant("zone")
    assert zone.request("POST", content=json.dumps(subject()), headers={"Content-Type": content_type}).status == 201


# Fields

TEXT_FIELDS = ["country", "state", "locality", "organization", "organizational_unit", "common_name", "name", "description", "key_type"]
BOUNDS = {"organization": 64, "organizational_unit": 64, "state": 128, "locality": 128, "name": 255, "description": 1024}


@pytest.mark.parametrize("value", [5, 5.5, True, [], {}, ["US"]])
def test_a_wrong_json_type_is_1400_at_each_field(zone, value):
    wrong = {field: value for field in TEXT_FIELDS}
    answer = zone.request("POST", json=subject(**wrong))
    assert set(faults(answer.envelope)) == {(1400, f"/{field}") for field in TEXT_FIELDS}
    assert len(answer.envelope["errors"]) == len(TEXT_FIELDS)


def test_each_element_of_sans_is_a_field_of_its_own(zone):
    answer = zone.request("POST", json=subject(sans=["fine.acme-widgets.com", None, 5, "-", {}, "co.uk"], state=""))
    wrong_types = [(1400, "/sans/1"), (1400, "/sans/2"), (1400, "/sans/4")]
    assert faults(answer.envelope) == [*wrong_types, (1406, "/state"), (1412, "/sans/3"), (1415, "/sans/5")]
    for wrong in ("www.acme-widgets.com", 5, {}, True):
        assert faults(zone.request("POST", json=subject(sans=wrong)).envelope) == [(1400, "/sans")]


def test_control_characters_are_refused_where_they_stand(zone):
    texts = ["state", "locality", "organization", "organizational_unit", "common_name", "name", "description"]
    for control in ("\0", "\x1b", "\x7f", "\x85"):
        answer = zone.request("POST", json=subject(**{field: f"a{control}b" for field in texts}))
        assert set(faults(answer.envelope)) == {(1462, f"/{field}") for field in texts}
    assert faults(zone.request("POST", json=subject(sans=["a\0.acme-widgets.com"])).envelope) == [(1412, "/sans/0")]
    assert faults(zone.request("POST", json=subject(name="a\nb")).envelope) == [(1462, "/name")]
    assert faults(zone.request("POST", json=subject(key_type="p256v1\0")).envelope) == [(1417, "/key_type")]


def test_fields_over_their_bounds_are_refused_where_they_stand(zone):
    answer = zone.request("POST", json=subject(**{field: "ü" * (bound + 1) for field, bound in BOUNDS.items()}))
    assert set(faults(answer.envelope)) == {(1461, f"/{field}") for field in BOUNDS}
    for error in answer.envelope["errors"]:
        assert str(BOUNDS[error["source"]["pointer"][1:]]) in error["message"]
    assert faults(zone.request("POST", json=subject(common_name="ü" * 65)).envelope) == [(1410, "/common_name")]


def test_fields_at_their_bounds_are_accepted(service):
    zone = service.tenant("zone")
    created = zone.create(**{field: "🔑" * bound for field, bound in (BOUNDS | {"common_name": 64}).items()})
    assert zone.wait_active(created["id"])["description"] == "🔑" * 1024


def test_all_missing_fields_are_reported_together(zone):
    required = [(1405, "/country"), (1406, "/state"), (1407, "/locality"), (1408, "/organization"), (1409, "/common_name"), (1411, "/sans")]
    blank = dict.fromkeys(subject(), " \t") | {"sans": [], "key_type": "\u3000"}
    for body in ({}, dict.fromkeys(subject()), blank, {"x": {"country": "US"}}):
        assert faults(zone.request("POST", json=body).envelope) == required, body


# Anything


def test_random_bodies_are_answered(service):
    """Changes a valid body here and there; the seed is fixed."""
    zone, chance = service.tenant("zone", quota=100), random.Random(1467)
    pieces = [b'"', b"\\", b"{", b"}", b"[", b"]", b"\0", b"\xff", b"\\u0000", b"\\ud83d", b"null", b",", b":"]
    for _ in range(400):
        body = bytearray(json.dumps(subject(name="n", description="d\\n", sans=["a.acme-widgets.com", "ü.acme-widgets.com"])).encode())
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(body))
            change = chance.choice(["flip", "drop", "repeat", "insert"])
            if change == "flip":
                body[place] ^= 1 << chance.randrange(8)
            elif change == "drop":
                del body[place : place + chance.randint(1, 20)]
            elif change == "repeat":
                body[place:place] = body[place : place + chance.randint(1, 40)]
            else:
                body[place:place] = chance.choice(pieces)
        answer = post(zone, bytes(body))
        assert answer.status in (201, 400, 403), (bytes(body), answer)
    wait_until(lambda: zone.total(status="pending") == 0, "all are made")
    assert zone.total(status="failed") == 0
