"""Whatever stands around a body, in paths, methods, headers and queries: an answer in the envelope where HTTP allows one."""

import json

import pytest
from harness import bearer, check_envelope, codes, half_close, read_response, send, send_raw, subject

UUID = "01890a5d-ac96-774b-bcce-b302099a8057"
pytestmark = pytest.mark.usefixtures("unharmed")


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
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        answer = send(service, method, target, headers=bearer(zone))
        assert (answer.status, codes(answer.envelope), answer.headers["Allow"]) == (404, [7000], None), (method, target)


def test_an_id_may_be_percent_encoded(service, zone):
    encoded = "".join(f"%{ord(c):02X}" for c in zone.id)
    assert send(service, "GET", zone.path.replace(zone.id, encoded), headers=bearer(zone)).status == 200


@pytest.mark.parametrize(
    "csr_id",
    ["x", "%ff", "%2F", "%00", "..", "%", "%zz", "0" * 35, "0" * 36, "0" * 37, "g" + UUID[1:], UUID.replace("-", ""), UUID[:-1],
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


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "TRACE", "FROB"])
def test_another_method_on_one_custom_csr_is_7001(service, zone, method):
    answer = send(service, method, f"{zone.path}/{UUID}")
    assert (answer.status, codes(answer.envelope)) == (405, [7001])
    allowed = {word.strip() for word in answer.headers["Allow"].split(",")}
    assert {"GET", "PATCH", "DELETE"} <= allowed <= {"GET", "PATCH", "DELETE", "HEAD", "OPTIONS"}


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
    [b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nX"],
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
        (None, 1402), ("", 1000), ("Bearer", 1000), ("Bearer ", 1000), ("Basic dTpw", 1000), ("Bearer a b", 1000), ("Bearer x", 1001),
        ("Bearer a.b", 1001), ("Bearer a.b.c.d", 1001), ("Bearer ..", 1002), ("Bearer e30.e30.", 1002), ("Bearer !.!.!", 1001),
        ("Bearer " + "[" * 3000, 1001),
    ],
)  # fmt: skip
def test_a_token_that_is_none_is_refused(service, zone, header, code):
    for csr_id in ("", "/no-uuid"):
        answer = send(service, "GET", zone.path + csr_id, headers={} if header is None else {"Authorization": header})
        assert codes(answer.envelope) == [code]
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge == "Bearer" if code == 1402 else challenge.startswith("Bearer error=\"invalid_token\", error_description=")


def test_a_bearer_token_may_be_called_so_in_any_case(service, zone):
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert send(service, "GET", zone.path, headers={"Authorization": f"{scheme} {zone.token}"}).status == 200


def test_bytes_that_are_no_text_in_the_authorization_header_are_refused(service, zone):
    request = b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n" % zone.path.encode()
    response = send_raw(service, request)
    assert response[0] == 401 and codes(check_envelope(*response)) in ([1000], [1001])


@pytest.mark.parametrize(
    "query",
    ["per_page=4", "per_page=51", "per_page=0", "per_page=-1", "per_page=x", "per_page=5.5", "per_page=1e1", "per_page=9999999999",
     "page=0", "page=-1", "page=1.5", "page=%00", "page=%ff", "page=NaN", "order=id", "order=NAME%00", "direction=up", "status=done",
     "key_type=rsa", "search=" + "x" * 256],
)  # fmt: skip
def test_a_query_parameter_out_of_range_is_1464_and_named(service, zone, query):
    answer = send(service, "GET", f"{zone.path}?{query}", headers=bearer(zone))
    assert codes(answer.envelope) == [1464]
    assert query.split("=")[0] in answer.envelope["errors"][0]["message"]


@pytest.mark.parametrize(
    "query",
    ["page=2147483647&per_page=50", "page=99999", "search=%25", "search=_", "search=%00", "search=%27%3B--", "search=%ff", "x=y", "&&=&"],
)
def test_a_strange_query_finds_nothing(service, zone, query):
    answer = send(service, "GET", f"{zone.path}?{query}", headers=bearer(zone))
    assert answer.status == 200 and answer.result == []


def test_a_request_id_is_taken_over_or_made(service, zone):
    for good in ("a", "A-z_0.9", "x" * 64, "."):
        assert send(service, "GET", zone.path, headers={"X-Request-Id": good}).headers["X-Request-Id"] == good
    bad_ones = ["", "x" * 65, "a b", "a/b", "ü"]
    made = {send(service, "GET", "/nothing", headers={"X-Request-Id": bad}).headers["X-Request-Id"] for bad in bad_ones}
    assert len(made) == len(bad_ones) and made.isdisjoint(bad_ones)


def test_every_unauthorized_or_unknown_request_is_in_the_envelope(service):
    answers = [service.request("GET", path) for path in ("/nothing", "/api/v4/zones/z/custom_csrs", "/client/v4/accounts/a/custom_csrs/x")]
    assert [codes(answer.envelope) for answer in answers] == [[7000], [1402], [1402]]
