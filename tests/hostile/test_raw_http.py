"""Bytes that no client library sends: each is answered or refused by the contract, smuggles nothing, and costs nobody anything."""

import json
import socket
import time

import pytest
from attack import chance, check_refusal, exchange, memory_mib, under_attack
from ca import Certificates
from harness import Csrd, bearer, check_envelope, codes, faults, read_response, send, subject, wait_until

BODY_LIMIT = 64 * 1024
BODY = json.dumps(subject()).encode()
NO_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
# A request that is hidden in another one: if it is ever answered, its ID shows it.
SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: smuggled\r\n\r\n"


@pytest.fixture(scope="module")
def csrd(tmp_path_factory):
    with under_attack(tmp_path_factory.mktemp("raw")) as csrd:
        yield csrd
        wait_until(lambda: csrd.zone.total(status="pending") == 0, "every accepted row is made", 60)
        assert csrd.zone.total(status="failed") == 0


def head(csrd: Csrd, method: str = "POST", *lines: str | bytes, path: str | None = None, host: bool = True) -> bytes:
    """The head of a request with a token, with lines as they are."""
    made = [f"{method} {path or csrd.zone.path} HTTP/1.1", *(["Host: x"] if host else []), f"Authorization: Bearer {csrd.zone.token}", "Content-Type: application/json"]
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in [*made, *lines]) + b"\r\n\r\n"


def chunked(body: bytes, size: int = 100) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(body[n : n + size]), body[n : n + size]) for n in range(0, len(body), size)) + b"0\r\n\r\n"


def refused_with_400(csrd: Csrd, request: bytes, after: bytes = SMUGGLED) -> None:
    """One answer, 400, whatever follows on the connection; and nothing is made."""
    before = csrd.zone.total()
    responses = exchange(csrd, request + after)
    assert [response[0] for response in responses] == [400], responses
    envelope = check_refusal(responses[0])
    assert envelope is None or codes(envelope) == [1400], envelope
    assert csrd.zone.total() == before


# Who is asked, and how long a body is


def test_a_request_without_exactly_one_host_is_400(csrd):
    for method in ("GET", "POST"):
        length = [f"Content-Length: {len(BODY)}"] if method == "POST" else []
        body = BODY if method == "POST" else b""
        for hosts in ([], ["Host: x", "Host: x"], ["Host: x", "Host: y"], ["Host: x", "hOST: "], ["Host: x", "Host: x", "Host: x"]):
            refused_with_400(csrd, head(csrd, method, *hosts, *length, host=False) + body)
    # Without a route or a token too: it comes first.
    for path in (b"/nothing", b"/health/live", b"/api/v4/zones//custom_csrs"):
        refused_with_400(csrd, b"GET %s HTTP/1.1\r\n\r\n" % path)
    # HTTP/1.0 has none.
    assert exchange(csrd, b"GET /health/live HTTP/1.0\r\n\r\n")[0][0] == 200


ENCODINGS = [
    "gzip", "identity", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ",chunked", "chunked;q=1", "xchunked", "chunkedx", "chunked\x0b", "\x0bchunked", "chunk",
    "", "deflate", "chunked, identity", "'chunked'", '"chunked"', "chunked\t,", "CHUNKED, gzip", "c\u0068unked;",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_transfer_encoding_than_chunked_is_400(csrd, encoding):
    line = f"Transfer-Encoding: {encoding}"
    refused_with_400(csrd, head(csrd, "POST", line) + chunked(BODY))
    refused_with_400(csrd, head(csrd, "POST", line, f"Content-Length: {len(BODY)}") + BODY)


def test_several_transfer_encodings_are_400(csrd):
    for encodings in (["chunked", "chunked"], ["chunked", "identity"], ["identity", "chunked"], ["gzip", "chunked"], ["", "chunked"]):
        refused_with_400(csrd, head(csrd, "POST", *(f"Transfer-Encoding: {encoding}" for encoding in encodings)) + chunked(BODY))


def test_chunked_in_any_case_is_chunked(csrd):
    for encoding in ("chunked", "CHUNKED", "Chunked", " chunked ", "\tchunked"):
        (response, *_) = exchange(csrd, head(csrd, "POST", f"Transfer-Encoding: {encoding}", "Connection: close") + chunked(BODY))
        assert response[0] == 201, encoding


LENGTHS = ["+5", "-1", "5, 6", "0x5", "5 5", "5.0", "1e1", "", "five", "\u0665", "18446744073709551616", "9" * 40, "5;", "5\x0b", "-0", "5,,5", "%35"]


@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_none_is_400(csrd, length):
    refused_with_400(csrd, head(csrd, "POST", f"Content-Length: {length}") + BODY)


def test_two_lengths_that_differ_are_400_and_two_alike_are_one_or_400(csrd):
    n = len(BODY)
    refused_with_400(csrd, head(csrd, "POST", f"Content-Length: {n}", f"Content-Length: {n + len(SMUGGLED)}") + BODY)
    refused_with_400(csrd, head(csrd, "POST", "Content-Length: 0", f"Content-Length: {n}") + BODY)
    for lines in ([f"Content-Length: {n}"] * 2, [f"Content-Length: {n}, {n}"]):
        responses = exchange(csrd, head(csrd, "POST", *lines, "Connection: close") + BODY)
        assert len(responses) == 1 and responses[0][0] in (201, 400), responses


def test_a_length_and_chunks_together_are_one_request_and_the_end_of_the_connection(csrd):
    """Who goes by the length sees another request after it."""
    for length in (0, 1, 4, len(BODY), len(chunked(BODY)), 10_000):
        for lines in ([f"Content-Length: {length}", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", f"Content-Length: {length}"]):
            responses = exchange(csrd, head(csrd, "POST", *lines) + chunked(BODY) + SMUGGLED)
            assert len(responses) == 1 and responses[0][0] in (201, 400), (lines, responses)
            # Chunks that end at once: what follows belongs to nobody.
            responses = exchange(csrd, head(csrd, "POST", *lines) + b"0\r\n\r\n" + SMUGGLED)
            assert len(responses) == 1 and responses[0][0] == 400, (lines, responses)


def test_a_header_that_only_looks_like_an_encoding_or_a_length_is_none(csrd):
    lines = [
        "Transfer-Encoding : chunked", " Transfer-Encoding: chunked", "Transfer-Encoding\t: chunked", "Content-Length : 5", "X: y\r\n Transfer-Encoding: chunked", "X: y\r\n\tContent-Length: 5",
        "Transfer-Encoding\0: chunked", "\0Transfer-Encoding: chunked", "Transfer\x0bEncoding: chunked", "Transfer-Encoding:\r\n chunked", "X: y\rTransfer-Encoding: chunked",
        ": chunked", "Transfer-Encoding chunked", "Transfer-Encoding", "Content-Length: 5\r\n ", "T\u00e9: x",
    ]  # fmt: skip
    for line in lines:
        refused_with_400(csrd, head(csrd, "POST", line.encode("latin-1")) + chunked(BODY))
    # A name of its own, with which the body has no length: it is empty, and the rest is another request, which is none.
    for line in ("Transfer_Encoding: chunked", "Transfer-Encodin: chunked", "Content_Length: 5"):
        responses = exchange(csrd, head(csrd, "POST", line) + b"5\r\nhello\r\n0\r\n\r\n")
        assert [response[0] for response in responses][:1] == [400] and len(responses) <= 2, responses
        assert all(response[0] == 400 for response in responses)


# Chunks


def test_chunks_of_every_valid_form_are_read(csrd):
    body, n = BODY, len(BODY)
    forms = [
        b"%x\r\n%s\r\n0\r\n\r\n" % (n, body), b"%X\r\n%s\r\n0\r\n\r\n" % (n, body), b"0000%x\r\n%s\r\n0\r\n\r\n" % (n, body), b"%x\r\n%s\r\n000\r\n\r\n" % (n, body),
        b"%x;name=value\r\n%s\r\n0\r\n\r\n" % (n, body), b'%x;name="a;b"\r\n%s\r\n0;x\r\n\r\n' % (n, body), b"%x\r\n%s\r\n0\r\nX-Trailer: y\r\n\r\n" % (n, body),
        chunked(body, 1), chunked(body, 7),
    ]  # fmt: skip
    for form in forms:
        (response,) = exchange(csrd, head(csrd, "POST", "Transfer-Encoding: chunked", "Connection: close") + form)
        assert response[0] == 201, (form[:40], response)


CHUNKS = [
    b"-1\r\nx\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n", b"5 5\r\nhello\r\n0\r\n\r\n", b"\r\nhello\r\n0\r\n\r\n", b"fffffffffffffffff\r\nx",
    b"10000000000000000\r\nx\r\n", b"ffffffffffffffff\r\nx", b"7fffffffffffffff\r\nx", b"5\nhello\n0\n\n", b"5\rhello\r0\r\r", b"5\r\nhelloworld\r\n0\r\n\r\n", b"5\r\nhell\r\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n",
    b"5\r\nhello\r\n", b"5\r\nhel", b"5", b"5;" + b"x" * 100_000 + b"\r\nhello\r\n0\r\n\r\n", b"0" * 100_000 + b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
    b"0\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", b"5\r\nhello\r\n0\r\nX\0: y\r\n\r\n", b"5\r\nhello\r\n0\r\n X: y\r\n\r\n", b"5\x00\r\nhello\r\n0\r\n\r\n", b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(CHUNKS)))
def test_chunks_that_are_none_end_in_a_refusal_and_write_nothing(csrd, number):
    before = csrd.zone.total()
    responses = exchange(csrd, head(csrd, "POST", "Transfer-Encoding: chunked") + CHUNKS[number], expected=0)
    assert len(responses) <= 1, responses
    for response in responses:
        check_refusal(response)
    assert csrd.zone.total() == before


def test_the_size_of_a_chunk_is_not_believed_before_it_is_there(csrd):
    """Nothing is set aside for it, and the limit of 64 KiB holds however small the pieces are."""
    before = memory_mib(csrd)
    for form in (b"7fffffff\r\n" + b"x" * 200_000, b"1\r\nx\r\n" * (BODY_LIMIT + 100), b"ffff\r\n" + b" " * 0xFFFF + b"\r\n" + b"2\r\n  \r\n0\r\n\r\n"):
        responses = exchange(csrd, head(csrd, "POST", "Transfer-Encoding: chunked") + form)
        assert [codes(check_envelope(*response)) for response in responses] in ([[1467]], [[1400]]), responses
    wait_until(lambda: csrd.is_up() and memory_mib(csrd) < before + 20, f"memory is about the {before:.0f} MiB that it was", 60)


# Request lines and headers

LINES = [
    b"get / HTTP/1.1", b"GET / http/1.1", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/3", b"GET / HTTP/0.9", b"GET / HTTP/1.10", b"GET / HTTP/01.1", b"GET / HTTP/1.1 x", b"GET / HTTPS/1.1", b"GET /",
    b"GET", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET\t/\tHTTP/1.1", b"GET / HTTP/1.1\t", b"GET /\0 HTTP/1.1", b"GET /\r HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xff HTTP/1.1",
    b"GET /\xc0\x80 HTTP/1.1", b"GET \\ HTTP/1.1", b"GET /\\..\\ HTTP/1.1", b"GET // HTTP/1.1", b"GET /? HTTP/1.1", b"GET /??? HTTP/1.1", b"GET /#x HTTP/1.1", b"GET /%23 HTTP/1.1", b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1", b"CONNECT x:443 HTTP/1.1", b"GET x:443 HTTP/1.1", b"GET http:// HTTP/1.1", b"GET http:///x HTTP/1.1", b"GET http://[::1/ HTTP/1.1", b"GET http://a@b@c/ HTTP/1.1", b"GET ftp://x/ HTTP/1.1",
    b"GET file:///etc/passwd HTTP/1.1", b"GET http://x:99999/ HTTP/1.1", b"GET https://x/ HTTP/1.1", b"GET javascript:alert(1) HTTP/1.1", b"GET /" + b"a" * 65_000 + b" HTTP/1.1", b"GET /" + b"a" * 200_000 + b" HTTP/1.1",
    b"G" * 70_000 + b" / HTTP/1.1", b"G@T / HTTP/1.1", b"G\0T / HTTP/1.1", b"G\xc3\xa4T / HTTP/1.1", b"GET / HTTP/1.1\0", b"", b"\0", b"\xff\xfe", b"{}", b"HTTP/1.1 200 OK", b"PRI * HTTP/2.0", b"SSTP_DUPLEX_POST / HTTP/1.1",
    b"RTSP://x RTSP/1.0", b"GET /../../etc/passwd HTTP/1.1", b"GET /docs/../openapi.yaml HTTP/1.1", b"GET /docs/%2e%2e/%2e%2e/etc/passwd HTTP/1.1", b"GET /docs//etc/passwd HTTP/1.1",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(LINES)))
def test_a_strange_request_line_is_refused_or_answered_once(csrd, number):
    responses = exchange(csrd, LINES[number] + b"\r\nHost: x\r\nConnection: close\r\n\r\n", expected=0)
    assert len(responses) <= 1, responses
    for response in responses:
        if response[0] >= 400:
            # Too long a line is the parser's own refusal.
            check_refusal(response)
        assert b"root:" not in response[2]


def test_line_ends_of_another_kind_smuggle_nothing(csrd):
    for end in (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x0b", b"\xe2\x80\xa8", b"\x85"):
        responses = exchange(csrd, b"GET /nothing HTTP/1.1" + end + b"Host: x" + end + b"X: y" + end + end + SMUGGLED.replace(b"smuggled", b"next-in-line"), expected=0)
        assert len(responses) <= 2 and all(200 <= response[0] < 500 for response in responses), (end, responses)
    # Empty lines before a request are passed over (RFC 9112, 2.2).
    (response,) = exchange(csrd, b"\r\n\r\n" + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert response[0] == 200


HEADERS = [
    b"NoColon", b": no name", b"A B: c", b"A\t: c", b"A: b\0c", b"A: b\rc", b"A: \x01", b"A: \x7f", b"A: \xff\xfe", b"A:", b"A: " + b"x" * 60_000, b"A: " + b"x" * 100_000, b"A" * 70_000 + b": x",
    b"\r\n".join(b"A%d: b" % n for n in range(90)), b"\r\n".join(b"A%d: b" % n for n in range(500)), b"Connection: close, keep-alive", b"Connection: authorization", b"Connection: host, content-type",
    b"Connection: " + b"x," * 5000, b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: ", b"Upgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13", b"TE: trailers, gzip", b"Trailer: Authorization", b"Range: bytes=0-10", b"If-None-Match: *", b"If-Match: x",
    b"Accept: \xff", b"Accept: " + b"a/b," * 5000, b"Accept-Encoding: gzip;q=x", b"Accept-Language: " + b"x" * 3000, b"Content-Encoding: gzip", b"Cookie: " + b"a=b; " * 3000, b"Prefer: wait=" + b"9" * 5000,
    b"Prefer: wait=-1, wait=x, wait", b"Idempotency-Key: " + b"x" * 256, b"Idempotency-Key: \xff", b"X-Request-Id: " + b"x" * 5000, b"Date: x", b"Max-Forwards: 0", b"Via: 1.1 x", b"Keep-Alive: timeout=999999",
    b"Transfer-Encoding: chunked\r\nTrailer: x", b"Proxy-Connection: keep-alive", b"Authorization: Bearer x",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_a_strange_header_is_refused_or_answered_once(csrd, number):
    line = HEADERS[number]
    for method in ("GET", "POST"):
        before = csrd.zone.total()
        extra = [f"Content-Length: {len(BODY)}"] if method == "POST" and b"Transfer-Encoding" not in line else []
        responses = exchange(csrd, head(csrd, method, line, *extra, "Connection: close") + (BODY if extra else b""), expected=0)
        final = [response for response in responses if response[0] >= 200]
        assert len(final) <= 1 and all(response[0] < 500 for response in responses), (line[:60], responses)
        for response in final:
            check_refusal(response) if response[0] >= 400 else check_envelope(*response)
        made = csrd.zone.total() - before
        # What got no answer within a moment may have been accepted all the same: one `Prefer` here waits for a key.
        assert made == sum(response[0] == 201 for response in final) or (made == 1 and method == "POST" and not final), (line[:60], responses)


def test_two_authorization_headers_are_none(csrd):
    for second in (csrd.zone.token, "x", ""):
        (response,) = exchange(csrd, head(csrd, "GET", f"Authorization: Bearer {second}", "Connection: close"))
        assert codes(check_envelope(*response)) == [1000]


# One connection for many requests


def test_551_requests_in_one_go_are_answered_in_order(csrd):
    random = chance("pipeline")
    requests, expected = [], []
    for number in range(551):
        path, token, status = random.choice([(csrd.zone.path, True, 200), (csrd.zone.path, False, 400), ("/nothing", True, 404), ("/health/live", False, 200), (f"{csrd.zone.path}/x", True, 400)])
        lines = [f"GET {path} HTTP/1.1", "Host: x", f"X-Request-Id: number-{number}"] + ([f"Authorization: Bearer {csrd.zone.token}"] if token else [])
        requests.append("\r\n".join([*lines, "", ""]).encode())
        expected.append((status, f"number-{number}"))
    responses = exchange(csrd, b"".join(requests), expected=551, seconds=60)
    assert [(status, headers["X-Request-Id"]) for status, headers, _ in responses] == expected


def test_bodies_in_one_go_are_each_their_own_requests(csrd):
    before = csrd.zone.total()
    bodies = [json.dumps(subject(name=f"pipelined {number}")).encode() for number in range(20)]
    requests = [head(csrd, "POST", f"Content-Length: {len(body)}") + body if number % 2 else head(csrd, "POST", "Transfer-Encoding: chunked") + chunked(body) for number, body in enumerate(bodies)]
    responses = exchange(csrd, b"".join(requests), expected=20, seconds=60)
    assert [response[0] for response in responses] == [201] * 20
    assert [json.loads(content)["result"]["name"] for _, _, content in responses] == [f"pipelined {number}" for number in range(20)]
    assert csrd.zone.total() == before + 20


def test_the_body_of_a_refused_request_is_not_the_next_request(csrd):
    """Whatever the refusal read of it."""
    hidden = SMUGGLED * 3
    other = f"Bearer {csrd.tenant().token}"
    for path, authorization in ((csrd.zone.path, "Bearer x"), (csrd.zone.path, other), ("/nothing", other), (f"{csrd.zone.path}/{NO_ID}/rekey", other), (f"{csrd.zone.path}/x", other)):
        for length, body in ((f"Content-Length: {len(hidden)}", hidden), ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden))):
            request = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{length}\r\n\r\n".encode()
            responses = exchange(csrd, request, body)
            assert 1 == len(responses) and all(headers["X-Request-Id"] != "smuggled" for _, headers, _ in responses), (path, responses)
            check_refusal(responses[0])


@pytest.mark.parametrize("size", [len(BODY), 60_000])
@pytest.mark.parametrize("suffix", ["", f"/{NO_ID}/rekey", "/x"])
def test_a_connection_is_good_for_the_next_request_unless_its_response_says_that_it_closes(csrd, size, suffix):
    """Else a client that keeps connections loses a request that it cannot know to be lost (RFC 9112, 9.6). The body comes a moment after the
    head, as most clients send it."""
    other = csrd.tenant()
    body, lost = BODY.ljust(size), 0
    for _ in range(10):
        with csrd.connection() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = [f"POST {csrd.zone.path}{suffix} HTTP/1.1", "Host: x", f"Authorization: Bearer {other.token}", "Content-Type: application/json", f"Content-Length: {size}", "", ""]
            connection.sendall("\r\n".join(lines).encode())
            time.sleep(0.005)
            connection.sendall(body)
            status, headers, content = read_response(connection, "POST")
            assert status in (400, 403, 405), content
            if headers.get("Connection", "").lower() == "close":
                continue
            try:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                lost += read_response(connection) is None
            except ConnectionError:
                lost += 1
    assert lost == 0, f"{lost} of 10 connections were closed without a word"


# Bodies


def sized(size: int, **members) -> bytes:
    """A valid body of this size."""
    return json.dumps(members).encode().ljust(size)


@pytest.mark.parametrize("form", ["length", "chunks"])
def test_64_kib_is_the_limit_to_the_byte_for_every_operation_with_a_body(csrd, form):
    csr = csrd.zone.wait_active(csrd.zone.create()["id"])["id"]
    certificates = Certificates(csrd.zone).path
    operations = [
        ("POST", csrd.zone.path, subject()), ("PATCH", f"{csrd.zone.path}/{csr}", {"name": "n"}), ("POST", f"{csrd.zone.path}/{csr}/rekey", {"name": "n"}), ("POST", certificates, {"certificate": "x"}),
    ]  # fmt: skip
    for method, path, members in operations:
        for size in (BODY_LIMIT - 1, BODY_LIMIT, BODY_LIMIT + 1):
            body = sized(size, **members)
            lines = [f"Content-Length: {size}"] if form == "length" else ["Transfer-Encoding: chunked"]
            (response,) = exchange(csrd, head(csrd, method, *lines, "Connection: close", path=path) + (body if form == "length" else chunked(body, 8192)))
            is_too_large = codes(check_envelope(*response)) == [1467]
            assert is_too_large == (size > BODY_LIMIT), (method, path, size, response)


@pytest.mark.parametrize("size", [9_000_000, 10_000_000])
def test_a_body_of_ten_megabytes_is_refused_before_it_is_kept(csrd, size):
    before = memory_mib(csrd)
    for lines, body in (([f"Content-Length: {size}"], b" " * size), (["Transfer-Encoding: chunked"], chunked(b" " * size, 65_536))):
        responses = exchange(csrd, head(csrd, "POST", *lines) + body, expected=0)
        # A client that sends on may find the connection closed before it has read the answer.
        assert len(responses) <= 1 and all(codes(check_envelope(*response)) == [1467] for response in responses)
    wait_until(lambda: csrd.is_up() and memory_mib(csrd) < before + 20, f"memory is about the {before:.0f} MiB that it was", 60)


def post(csrd: Csrd, body: bytes):
    return send(csrd, "POST", csrd.zone.path, headers=bearer(csrd.zone) | {"Content-Type": "application/json"}, body=body)


def test_depth_is_refused_or_ignored_and_never_the_end_of_a_stack(csrd):
    for depth in (100, 127, 128, 129, 1000, 10_000, 30_000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")):
            if depth * (len(opening) + len(closing)) > 60_000:
                continue
            deep = opening * depth + b"1" + closing * depth
            for body in (BODY[:-1] + b', "x": ' + deep + b"}", b'{"sans": ' + deep + b"}", deep):
                assert post(csrd, body).status in (201, 400)


VALID_NUMBERS = [b"0", b"-0", b"-0.0", b"1e999", b"-1e999", b"1e-999", b"1E+2", b"9" * 400, b"0." + b"9" * 400, b"18446744073709551616", b"-9223372036854775809", b"2.2250738585072011e-308", b"1e-400"]
NO_NUMBERS = [b"01", b"+1", b".5", b"1.", b"0x10", b"1e", b"-", b"--1", b"Infinity", b"-Infinity", b"NaN", b"1_000", b"1,5", b"\xd9\xa5", b"1e1.5", b"00"]


def test_a_number_that_json_does_not_know_is_1400_alone_wherever_it_stands(csrd):
    for number in NO_NUMBERS:
        for body in (BODY[:-1] + b', "x": ' + number + b"}", BODY.replace(b'"US"', number), b'{"sans": [[' + number.replace(b",", b"-") + b"]]}"):
            assert faults(post(csrd, body).envelope) == [(1400, None)], (number, body)


@pytest.mark.parametrize("number", VALID_NUMBERS)
def test_a_number_in_place_of_a_text_is_1400_at_its_place(csrd, number):
    """However large: JSON has no limits (RFC 8259, 6)."""
    assert faults(post(csrd, BODY.replace(b'"US"', number)).envelope) == [(1400, "/country")]
    assert faults(post(csrd, BODY.replace(b'["www.acme-widgets.com"]', b"[" + number + b"]")).envelope) == [(1400, "/sans/0")]
    assert post(csrd, BODY[:-1] + b', "x": ' + number + b"}").status == 201


NO_UTF8 = [b"\xff", b"\xfe\xff", b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x9f\x94"]


def test_bytes_that_are_no_utf_8_are_1400_alone_in_every_member(csrd):
    for field in ("country", "state", "locality", "organization", "common_name", "name", "key_type", "x"):
        for text in NO_UTF8:
            body = json.dumps(subject(**{field: "MARK"})).encode().replace(b"MARK", text)
            assert faults(post(csrd, body).envelope) == [(1400, None)], (field, text)


def test_every_scalar_value_comes_back_as_it_was_given(csrd):
    random = chance("scalars")
    made = {}
    for number in range(40):
        text = "".join(chr(random.choice([random.randrange(0xA0, 0xD800), random.randrange(0xE000, 0x110000)])) for _ in range(30))
        text += random.choice(["\uffff", "\ufffe", "\ufdd0", "\U0001fffe", "\ufeff", "\u202e", "\u200b", "\U0010ffff", "e\u0301"])
        # Escaped by pairs of surrogates, and as it is.
        body = json.dumps(subject(name=text, organization=text), ensure_ascii=bool(number % 2)).encode()
        answer = post(csrd, body)
        assert answer.status == 201, (text, answer)
        made[answer.result["id"]] = text
    for csr_id, text in made.items():
        row = csrd.zone.wait_active(csr_id)
        assert row["name"] == row["organization"] == text


QUERIES = [
    "", "?", "&", "=", "=&=", "page", "page=", "page=1&page=2", "page=+1", "page=1%00", "page=%31", "page=1e0", "page=0x1", "page=%D9%A1", "page[]=1", "page%5B%5D=1", "per_page=5&per_page=50", "per_page=05",
    "per_page=20.00", "per_page=20.", "per_page=%20", "per_page=5;page=1", "order=name'--", "order=created_at;drop", "order=name,created_at", "order[]=name", "direction=asc%00", "direction=ASC", "status=active,pending",
    "status=", "status[]=active", "key_type=rsa2048%20", "key_type=RSA2048", "search=%", "search=%zz", "search=%c3%28", "search=%f0%9f%94%91", "search=%00%00", "search='", "search=\"", "search=\\", "search=%5C%25%5C_", "search=" + "%25" * 255,
    "search=" + "x" * 20_000, "a" * 20_000, "&" * 20_000, "x=y&" * 5000, "page=1#x", "page=1?x", "__proto__=x", "constructor=x", "%70age=1", "PAGE=1", "custom_csr_id=x", "host=*", "expires_before=x", "expires_before=9999-99-99", "cursor=x",
    "search=%EF%BF%BF", "search=%ED%A0%80", "page=9223372036854775808", "page=2147483647&per_page=50", "page=2147483648", "page=-2147483648", "page=1.0000000000000000000000001",
]  # fmt: skip


def test_a_strange_query_is_answered_or_1464(csrd):
    for path in (csrd.zone.path, Certificates(csrd.zone).path):
        for query in QUERIES:
            (response,) = exchange(csrd, head(csrd, "GET", "Connection: close", path=f"{path}?{query}"))
            if response[0] == 200:
                check_envelope(*response)
            else:
                # What can stand in no target is the parser's own refusal.
                assert (envelope := check_refusal(response)) is None or set(codes(envelope)) == {1464}, (query[:60], response)
    page = send(csrd, "GET", f"{csrd.zone.path}?page=2147483647&per_page=50", headers=bearer(csrd.zone))
    assert page.status == 200 and page.result == []


CONTENT_TYPES = [
    "application/json; charset=utf-16", "application/json, text/html", "application/json; x=y; z", "application/json;", ";", "application/", "/json", "application/json;charset=\"", "application/json" + ";a=b" * 1000, "APPLICATION/JSON\t",
    "application/vnd.api+json", "multipart/form-data; boundary=x", "application/json\xff",
]  # fmt: skip


def test_a_strange_content_type_is_json_or_1400_alone(csrd):
    for content_type in CONTENT_TYPES:
        headers = [f"Content-Type: {content_type}".encode("latin-1"), f"Content-Length: {len(BODY)}", "Connection: close"]
        request = head(csrd, "POST", *headers).replace(b"Content-Type: application/json\r\n", b"", 1)
        (response,) = exchange(csrd, request + BODY)
        assert response[0] == 201 or (response[0] == 400 and (not response[2] or faults(check_envelope(*response)) == [(1400, None)])), (content_type, response)


def test_random_bytes_are_no_request(csrd):
    random = chance("bytes")
    for _ in range(150):
        responses = exchange(csrd, random.randbytes(random.randrange(1, 2000)), expected=0)
        assert len(responses) <= 1
        for response in responses:
            check_refusal(response)


def test_a_changed_request_is_answered_or_refused(csrd):
    """A valid request with some bytes changed in its head."""
    random = chance("heads")
    pieces = [b"\r\n", b"\n", b"\r", b":", b" ", b"\t", b"\0", b"\xff", b"%00", b"%2F", b"/", b"?", b"#", b"Host: y\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b";", b","]
    for _ in range(300):
        request = bytearray(head(csrd, random.choice(["GET", "POST"]), f"Content-Length: {len(BODY)}", "Connection: close"))
        for _ in range(random.randint(1, 3)):
            place = random.randrange(len(request))
            if random.random() < 0.3:
                request[place] ^= 1 << random.randrange(8)
            elif random.random() < 0.3:
                del request[place : place + random.randint(1, 5)]
            else:
                request[place:place] = random.choice(pieces)
        responses = exchange(csrd, bytes(request) + BODY, expected=0)
        assert len(responses) <= 3
        for response in responses:
            assert response[0] < 500, (bytes(request), response)
            check_refusal(response) if response[0] >= 400 else check_envelope(*response)
