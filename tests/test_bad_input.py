"""Whatever is sent: an answer in the envelope where HTTP allows one, nothing written, and the service goes on."""

import json
import random

import pytest
from harness import Answer, check_envelope, codes, faults, half_close, read_response, send_raw, subject, wait_until

BODY_LIMIT = 64 * 1024
JSON = {"Content-Type": "application/json"}
UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture(autouse=True)
def unharmed(service, zone):
    """After each test nothing was written for the zone, nothing has panicked, and the service works."""
    began = service.log_path.stat().st_size
    yield
    assert zone.total() == 0
    assert service.is_up("/health/ready")
    assert b"panicked" not in service.log_path.read_bytes()[began:]
    csr_id = zone.create()["id"]
    zone.wait_active(csr_id)


def send(service, method: str, target: bytes | str, *, headers: dict | None = None, body: bytes = b"", version: str = "1.1") -> Answer | None:
    """A request as it stands; its answer, if any, has to be in the envelope."""
    target = target if isinstance(target, bytes) else target.encode()
    fields = {"Host": service.address, "Connection": "close"} | (headers or {})
    if body:
        fields.setdefault("Content-Length", str(len(body)))
    head = b"%s %s HTTP/%s\r\n" % (method.encode(), target, version.encode())
    head += b"".join(f"{name}: {value}\r\n".encode() for name, value in fields.items()) + b"\r\n"
    response = send_raw(service, head + body, method)
    assert response is not None, "the connection was closed without an answer"
    return Answer(response[0], response[1], response[2], check_envelope(*response))


def post(zone, content: bytes | str, **headers) -> Answer:
    content = content if isinstance(content, bytes) else content.encode()
    return zone.request("POST", content=content, headers=JSON | headers)


def bearer(zone) -> dict[str, str]:
    return {"Authorization": f"Bearer {zone.token}"}


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
    bounds = {"organization": 64, "organizational_unit": 64, "state": 128, "locality": 128, "name": 255, "description": 1024}
    answer = zone.request("POST", json=subject(**{field: "ü" * (bound + 1) for field, bound in bounds.items()}))
    assert set(faults(answer.envelope)) == {(1461, f"/{field}") for field in bounds}
    for error in answer.envelope["errors"]:
        assert str(bounds[error["source"]["pointer"][1:]]) in error["message"]
    assert faults(zone.request("POST", json=subject(common_name="ü" * 65)).envelope) == [(1410, "/common_name")]


def test_fields_at_their_bounds_are_accepted(service):
    zone = service.tenant("zone")
    bounds = {"organization": 64, "organizational_unit": 64, "state": 128, "locality": 128, "common_name": 64, "name": 255, "description": 1024}
    created = zone.create(**{field: "🔑" * bound for field, bound in bounds.items()})
    assert zone.wait_active(created["id"])["description"] == "🔑" * 1024


def test_all_missing_fields_are_reported_together(zone):
    required = [(1405, "/country"), (1406, "/state"), (1407, "/locality"), (1408, "/organization"), (1409, "/common_name"), (1411, "/sans")]
    for body in ({}, dict.fromkeys(subject()), dict.fromkeys(subject(), " \t") | {"sans": [], "key_type": "\u3000"}, {"x": {"country": "US"}}):
        assert faults(zone.request("POST", json=body).envelope) == required, body


# Paths


@pytest.mark.parametrize("prefix", ["/api/v4", "/client/v4"])
@pytest.mark.parametrize("kind", ["zones", "accounts"])
def test_an_empty_zone_or_account_id_is_1401_with_or_without_a_token(service, zone, prefix, kind):
    path = f"{prefix}/{kind}//custom_csrs"
    for headers in ({}, bearer(zone), {"Authorization": "nonsense"}):
        for method, target in (("GET", path), ("POST", path), ("GET", f"{path}/{UUID}"), ("DELETE", f"{path}/{UUID}")):
            assert codes(service.request(method, target, headers=headers).envelope) == [1401], (method, target)


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/api",
        "/api/v4",
        "/api/v4/",
        "/api/v4/zones",
        "/api/v4/zones/z",
        "/api/v4/zones/z/custom_csr",
        "/api/v4/users/z/custom_csrs",
        "/api/v5/zones/z/custom_csrs",
        "/api/v4/zones/z/custom_csrs/" + UUID + "/x",
        "/api/v4/zones/" + "z" * 65 + "/custom_csrs",
        "/api/v4/zones/a%20b/custom_csrs",
        "/api/v4/zones/%ff/custom_csrs",
        "/api/v4/zones/%00/custom_csrs",
        "/api/v4/zones/a%2Fb/custom_csrs",
        "/api/v4/zones/%2F/custom_csrs",
        "/api/v4/zones/%C3%BC/custom_csrs",
        "/api/v4/zones/%/custom_csrs",
        "/api/v4/zones/%zz/custom_csrs",
        "/api/v4/zones/*/custom_csrs",
        "/%ff",
        "/%2F",
        "//api/v4/zones/z/custom_csrs",
        "/API/v4/zones/z/custom_csrs",
        "/api/v4/Zones/z/custom_csrs",
        "/api/v4%2Fzones/z/custom_csrs",
    ],
)
def test_what_is_no_route_is_7000(service, zone, target):
    for method in ("GET", "POST"):
        answer = send(service, method, target, headers=bearer(zone))
        assert (answer.status, codes(answer.envelope)) == (404, [7000]), (method, target)


def test_an_id_may_be_percent_encoded(service, zone):
    encoded = "".join(f"%{ord(c):02X}" for c in zone.id)
    assert send(service, "GET", zone.path.replace(zone.id, encoded), headers=bearer(zone)).status == 200


@pytest.mark.parametrize(
    "csr_id",
    ["x", "%ff", "%2F", "%00", "..", "%", "%zz", "0" * 35, "0" * 37, "g1890a5d-ac96-774b-bcce-b302099a8057", "01890a5dac96774bbcceb302099a8057", UUID[:-1],
     UUID.replace("-", "_"), "%7B" + UUID[1:-1] + "%7D", "x" * 5000, "%F0%9F%94%91"],
)  # fmt: skip
def test_a_custom_csr_id_that_is_no_uuid_is_1418(service, zone, csr_id):
    for method in ("GET", "DELETE"):
        answer = send(service, method, f"{zone.path}/{csr_id}", headers=bearer(zone))
        assert (answer.status, codes(answer.envelope)) == (400, [1418])


def test_raw_bytes_in_a_target_harm_nobody(service, zone):
    for target in (b"/\xff", zone.path.encode() + b"/\xff", b"/\x00", b"\xff", b"/a b", b"http://[/", b"*", b""):
        response = send_raw(service, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert response is None or 400 <= response[0] < 500, (target, response)


# Methods


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROB", "get"])
def test_another_method_on_the_collection_is_7001(service, zone, method):
    # The method is judged before the token.
    for headers in ({}, bearer(zone)):
        answer = send(service, method, zone.path, headers=headers)
        assert (answer.status, codes(answer.envelope)) == (405, [7001])
        allowed = {word.strip() for word in answer.headers["Allow"].split(",")}
        assert {"GET", "POST"} <= allowed <= {"GET", "POST", "HEAD", "OPTIONS"}


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "OPTIONS", "TRACE", "FROB"])
def test_another_method_on_one_custom_csr_is_7001(service, zone, method):
    answer = send(service, method, f"{zone.path}/{UUID}")
    assert (answer.status, codes(answer.envelope)) == (405, [7001])
    allowed = {word.strip() for word in answer.headers["Allow"].split(",")}
    assert {"GET", "DELETE"} <= allowed <= {"GET", "DELETE", "HEAD", "OPTIONS"}


def test_head_has_no_body_but_a_request_id(service, zone):
    head = f"HEAD {zone.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {zone.token}\r\nConnection: close\r\n\r\n".encode()
    with service.connection() as connection:
        connection.sendall(head)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split()[1] == b"200" and b"x-request-id:" in head.lower()
    assert body == b""


def test_http_1_0_is_answered(service, zone):
    response = send_raw(service, f"GET {zone.path} HTTP/1.0\r\nAuthorization: Bearer {zone.token}\r\n\r\n".encode())
    assert response[0] == 200 and check_envelope(*response)["result"] == []
    response = send_raw(service, f"POST {zone.path} HTTP/1.0\r\nAuthorization: Bearer {zone.token}\r\n\r\n".encode(), "POST")
    assert codes(check_envelope(*response)) == [1400]


@pytest.mark.parametrize(
    "start",
    [b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nXX"],
)
def test_what_is_no_http_harms_nobody(service, start):
    with service.connection() as connection:
        connection.sendall(start)
        half_close(connection)
        response = read_response(connection)
    assert response is None or 400 <= response[0] < 500, response


def test_bodies_that_break_off_write_nothing(service, zone):
    body = json.dumps(subject()).encode()
    head = f"POST {zone.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {zone.token}\r\nContent-Type: application/json\r\n"
    for rest in (
        f"Content-Length: {len(body) + 1}\r\n\r\n".encode() + body,
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body),
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n" + body,
        b"Content-Length: nonsense\r\n\r\n" + body,
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + body,
        b"Content-Length: -1\r\n\r\n" + body,
    ):
        with service.connection() as connection:
            connection.sendall(head.encode() + rest)
            half_close(connection)
            response = read_response(connection)
        assert response is None or 400 <= response[0] < 500, (rest, response)


# Headers and queries


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 1402), ("", 1000), ("Bearer", 1000), ("Bearer ", 1000), ("Basic dTpw", 1000), ("Bearer a b", 1000), ("Bearer x", 1001), ("Bearer a.b", 1001),
        ("Bearer a.b.c.d", 1001), ("Bearer ..", 1002), ("Bearer e30.e30.", 1002), ("Bearer !.!.!", 1001), ("Bearer " + "[" * 3000, 1001),
    ],
)  # fmt: skip
def test_a_token_that_is_none_is_refused(service, zone, header, code):
    for csr_id in ("", "/no-uuid"):
        answer = send(service, "GET", zone.path + csr_id, headers={} if header is None else {"Authorization": header})
        assert codes(answer.envelope) == [code]
        assert ("WWW-Authenticate" in answer.headers) == (answer.status == 401)


def test_a_bearer_token_may_be_called_so_in_any_case(service, zone):
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert send(service, "GET", zone.path, headers={"Authorization": f"{scheme} {zone.token}"}).status == 200


def test_bytes_that_are_no_text_in_the_authorization_header_are_refused(service, zone):
    request = b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n" % zone.path.encode()
    response = send_raw(service, request)
    assert response[0] == 401 and codes(check_envelope(*response)) in ([1000], [1001])


@pytest.mark.parametrize(
    "query",
    ["per_page=4", "per_page=51", "per_page=0", "per_page=-1", "per_page=x", "per_page=5.5", "per_page=1e1", "per_page=99999999999999999999", "page=0",
     "page=-1", "page=1.5", "page=%00", "page=%ff", "page=NaN", "order=id", "order=NAME%00", "direction=up", "status=done", "key_type=rsa",
     "search=" + "x" * 256],
)  # fmt: skip
def test_a_query_parameter_out_of_range_is_1464_and_named(service, zone, query):
    answer = send(service, "GET", f"{zone.path}?{query}", headers=bearer(zone))
    assert codes(answer.envelope) == [1464]
    assert query.split("=")[0] in answer.envelope["errors"][0]["message"]


@pytest.mark.parametrize(
    "query", ["page=4294967295&per_page=50", "page=99999", "search=%25", "search=_", "search=%00", "search=%27%3B--", "search=%ff", "x=y", "&&=&"]
)
def test_a_strange_query_finds_nothing(service, zone, query):
    answer = send(service, "GET", f"{zone.path}?{query}", headers=bearer(zone))
    assert answer.status == 200 and answer.result == []


def test_a_request_id_is_taken_over_or_made(service, zone):
    for good in ("a", "A-z_0.9", "x" * 64):
        assert send(service, "GET", zone.path, headers={"X-Request-Id": good}).headers["X-Request-Id"] == good
    bad_ones = ["", "x" * 65, "a b", "a/b", "ü"]
    made = {send(service, "GET", "/nothing", headers={"X-Request-Id": bad}).headers["X-Request-Id"] for bad in bad_ones}
    assert len(made) == len(bad_ones) and made.isdisjoint(bad_ones)


def test_every_unauthorized_or_unknown_request_is_in_the_envelope(service):
    answers = [service.request("GET", path) for path in ("/nothing", "/api/v4/zones/z/custom_csrs", "/client/v4/accounts/a/custom_csrs/x")]
    assert [codes(answer.envelope) for answer in answers] == [[7000], [1402], [1402]]


def test_random_bodies_are_answered(service):
    """Changes a valid body here and there; the seed is fixed."""
    zone, chance = service.tenant("zone", quota=100), random.Random(1467)
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
                body[place:place] = chance.choice([b'"', b"\\", b"{", b"}", b"[", b"]", b"\0", b"\xff", b"\\u0000", b"\\ud83d", b"null", b",", b":"])
        answer = post(zone, bytes(body))
        assert answer.status in (201, 400, 403), (bytes(body), answer)
    wait_until(lambda: zone.total(status="pending") == 0, "all are made")
    assert zone.total(status="failed") == 0
