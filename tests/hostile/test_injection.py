"""What a client sends shows up in headers and in the log as what it is: no header, no record and no address of its own making."""

import json
import re

import pytest
from attack import check_unharmed
from harness import ID, Csrd, bearer, check_envelope, read_response, send, subject, wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
# What would show that something was injected.
MARK = "injected-by-a-test"


@pytest.fixture(scope="module", params=["text", "json"])
def csrd(request, tmp_path_factory):
    csrd = Csrd(tmp_path_factory.mktemp("injection"), "--log-format", request.param, "--log-level", "debug", "--key-pool-size", "0").start()
    csrd.form = request.param
    csrd.zone = csrd.tenant()
    try:
        yield csrd
        check_unharmed(csrd)
        check_log(csrd)
    finally:
        csrd.close()


def check_log(csrd: Csrd) -> None:
    """Every record is one line of printable characters, and every line is a record."""
    content = csrd.log_path.read_bytes().decode()
    lines = content.split("\n")
    assert lines.pop() == "" and len(lines) > 5
    for line in lines:
        assert all(character.isprintable() for character in line), repr(line)
        if csrd.form == "json":
            assert isinstance(json.loads(line), dict), line
        else:
            assert TIME.match(line), line


def answered(csrd: Csrd, request_id: str) -> list[str]:
    """The last lines of requests with this ID; a record may come after the response."""
    return wait_until(lambda: [line for line in csrd.log().split("\n")[:-1] if request_id in line and "answered" in line], "the record is there", 5)


def raw(csrd: Csrd, head: bytes, body: bytes = b"") -> tuple[bytes, tuple]:
    """Sends bytes; returns the head of the response as it came, and the response."""
    with csrd.connection() as connection:
        connection.sendall(head + body)
        received = connection.recv(65536, 2)
        # What was looked at is still there to be read.
        return received.partition(b"\r\n\r\n")[0], read_response(connection)


IDS = [
    b"a\tb", b"a b", b"a,b", b"%0d%0aX-Injected:%20yes", b"\\r\\nX-Injected: yes", b"\xc3\xbc", b"\xff\xfe", b"a\x85b", b"x" * 65, b"../../etc", b"<script>", b"${jndi:ldap://x}",
    b'"', b"{}", b"a=b status=500", b"\x1b[31m", b"\xe2\x80\xa8" + MARK.encode(),
]  # fmt: skip


@pytest.mark.parametrize("request_id", IDS)
def test_a_request_id_that_is_none_is_neither_answered_nor_logged(csrd, request_id):
    head = b"GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nX-Request-Id: %s\r\n\r\n"
    lines, response = raw(csrd, head % (csrd.zone.path.encode(), csrd.zone.token.encode(), request_id))
    if response[0] == 400 and not response[2]:
        # The HTTP parser refuses control characters.
        assert min(request_id) < 0x20
        return
    assert check_envelope(*response)["success"]
    made = response[1]["X-Request-Id"]
    assert ID.fullmatch(made) and request_id not in lines and b"Injected" not in lines
    assert lines.lower().count(b"x-request-id:") == 1
    (record,) = answered(csrd, made)
    assert len(request_id) < 4 or request_id.decode("latin-1") not in record


def test_a_line_break_in_a_header_is_no_header(csrd):
    """Bare CR, and what HTTP/2 or a proxy might let through."""
    for inside in (b"a\rX-Injected: yes", b"a\r\r\nX-Injected: yes", b"a\0b", b"a\x0bb", b"a\x7fb"):
        head = b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: %s\r\n\r\n" % inside
        lines, response = raw(csrd, head)
        assert response[0] in (400, 404) and b"njected" not in lines, (inside, response)
    # A real line break is a header of the request, and of that alone.
    lines, response = raw(csrd, b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\r\nX-Injected: yes\r\n\r\n")
    assert response[0] == 404 and b"njected" not in lines


def test_two_request_ids_are_one_in_the_answer_and_in_the_log(csrd):
    lines, response = raw(csrd, b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: first-of-two\r\nX-Request-Id: second-of-two\r\n\r\n")
    assert lines.lower().count(b"x-request-id:") == 1
    assert len(answered(csrd, response[1]["X-Request-Id"])) == 1


HOSTS = ["evil.example", "evil.example:80", "x@evil.example", "evil.example/path", "127.0.0.1", "[::1]", "x\\y", "evil.example?", "xn--fiqs8s"]


@pytest.mark.parametrize("prefix", ["/api/v4", "/client/v4"])
def test_the_location_of_a_new_row_is_a_path_that_no_header_changes(csrd, prefix):
    zone = csrd.tenant()
    path = zone.path.replace("/api/v4", prefix)
    names = ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Port", "X-Original-URL", "X-Host", "Forwarded", "Origin", "Referer"]
    attempts = [{"Host": host} for host in HOSTS] + [{name: value} for name in names for value in ("evil.example", "https://evil.example/", "host=evil.example")]
    for headers in attempts:
        body = json.dumps(subject()).encode()
        answer = send(csrd, "POST", path, headers=bearer(zone) | {"Content-Type": "application/json"} | headers, body=body)
        if answer.status == 400 and "Host" in headers:
            # That is no host.
            continue
        assert answer.status == 201, (headers, answer)
        assert answer.headers["Location"] == f"{path}/{answer.result['id']}", headers
        assert "evil" not in answer.content.decode() and "evil" not in str(answer.headers), headers
    # The whole address in the request line.
    answer = send(csrd, "POST", f"http://evil.example{path}", headers=bearer(zone) | {"Content-Type": "application/json"}, body=json.dumps(subject()).encode())
    assert answer.status == 201 and answer.headers["Location"] == f"{path}/{answer.result['id']}"


PATHS = [
    "/%0d%0aSet-Cookie:%20a=b", "/%0aInjected", "/api/v4/zones/%0d%0aX-Injected:%20y/custom_csrs", "/%1b[31m", "/%00", "/%c2%85", "/%e2%80%a8", "/%e2%80%ae", "/\u2028",
    "/\u202etxt", "/\u0085", "/'\"<>", "/$(id)", "/${jndi}", "/\\n", "/a status=500 b", "/%7b%22level%22%3a%22ERROR%22%7d", '/{"level":"ERROR"}',
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_makes_no_header_and_no_second_record(csrd, path):
    # A space in a target ends it: there it is no path but a broken request line.
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    lines, response = raw(csrd, head)
    assert 400 <= response[0] < 500, response
    assert b"njected" not in lines and b"Set-Cookie" not in lines
    if not response[2]:
        return
    check_envelope(*response)
    assert len(answered(csrd, response[1]["X-Request-Id"])) == 1
    check_log(csrd)


def test_what_a_preference_says_is_not_sent_back_but_for_the_number(csrd):
    for prefer in ('wait=0; x="%0d%0aInjected"', "wait=0, injected=1", 'injected="a", wait=0', "wait=00000000000", "wait=0;injected", "respond-async, wait=0"):
        answer = send(csrd, "GET", f"{csrd.zone.path}/{csrd.zone.create()['id']}", headers=bearer(csrd.zone) | {"Prefer": prefer})
        assert answer.status == 200 and "injected" not in str(answer.headers).lower(), prefer
        assert answer.headers.get("Preference-Applied") in (None, "wait=0"), prefer


def test_a_message_repeats_what_was_sent_within_json_alone(csrd):
    texts = ['"}],"success":true,"errors":[{"x":"', "</script><script>", "\\", "\\u0022", "\u2028", "\u202e", "\U0001f511", "{{7*7}}", "%s%n", "a'b"]
    for text in texts:
        answer = csrd.zone.request("POST", json=subject(country=text, sans=[f"{text}.com", f"co.uk{text}"], key_type=text))
        assert answer.status == 400 and answer.envelope["success"] is False
        answer = csrd.zone.request("GET", params={"status": text, "order": text, "search": text})
        assert answer.status == 400 and answer.envelope["success"] is False
        assert answer.headers["Content-Type"].startswith("application/json") and answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_log_shows_no_value_of_a_body_and_no_token(csrd):
    for _ in range(3):
        csrd.zone.request("POST", json=subject(name=MARK, state="", description=MARK))
        csrd.zone.request("GET", params={"search": MARK})
        csrd.request("GET", csrd.zone.path, token=MARK)
    log = csrd.log()
    assert MARK not in log and csrd.zone.token not in log and csrd.zone.token.split(".")[2] not in log
