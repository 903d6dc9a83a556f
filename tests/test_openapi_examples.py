"""The examples of the OpenAPI document: what they show is what the service takes and answers."""

import re
from collections import defaultdict

from ca import DAY, Authority, Certificates, active, new_csr, small_rsa_key
from document import Document, codes_of
from harness import Csrd, Tenant, subject

# Nobody's.
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"


def test_every_example_is_one_that_its_schema_allows(document):
    checked, count = Document(document), 0
    for method, path, operation in checked.operations():
        parts = [operation.get("requestBody", {}), *map(checked.follow, operation["responses"].values())]
        for media_type, content in [found for part in parts for found in part.get("content", {}).items()]:
            if content["schema"].get("format") == "binary":
                continue
            for example in checked.examples(content):
                assert checked.faults(content["schema"], example) == [], (method, path, media_type)
                count += 1
    assert count > 700


def test_every_error_that_an_operation_can_answer_has_an_example(document):
    checked, count = Document(document), 0
    listed = {row["code"]: row for row in document["components"]["schemas"]["Message"]["properties"]["code"]["x-error-codes"]}
    for _, _, operation in checked.operations():
        parameters = [checked.follow(parameter) for parameter in operation["parameters"]]
        body = operation.get("requestBody", {"content": {}})["content"].get("application/json", {"schema": {}})["schema"]
        inputs = {("pointer", f"/{name}") for name in checked.follow(body).get("properties", {})}
        inputs |= {("parameter", parameter["name"]) for parameter in parameters if parameter["in"] == "query"}
        inputs |= {("header", parameter["name"]) for parameter in parameters if parameter["in"] == "header"}
        inputs |= {("header", "Accept"), ("header", "Content-Encoding")}
        # A rekey judges the SANs of the old custom CSR anew.
        inputs |= {("pointer", "/sans")} if operation["operationId"].endswith("-rekey") else set()
        for status, response in operation["responses"].items():
            if status < "400":
                continue
            response = checked.follow(response)
            where = (operation["operationId"], status)
            examples = checked.examples(response["content"]["application/json"])
            codes = [example["errors"][0]["code"] for example in examples]
            assert sorted(codes) == sorted(codes_of(response["description"]) & listed.keys()), where
            for example in examples:
                (error,) = example["errors"]
                assert str(listed[error["code"]]["status"]) == status, where
                # An element of a list is a part of the member.
                source = {(kind, re.sub(r"(?<=.)/\d+$", "", name)) for kind, name in error.get("source", {}).items()}
                assert source <= inputs, (where, error)
                assert [(hint["code"], hint.get("source")) for hint in example["messages"]] in ([], [(2100, error.get("source"))]), where
                assert "…" not in error["message"] and ":reason" not in error["message"], (where, error)
                count += 1
    assert count > 600


def test_the_examples_of_errors_are_what_the_service_answers(new_csrd, document):
    # Without workers a custom CSR stays pending.
    csrd = new_csrd("--workers", "0").start()
    csrd.ok("zone", "grant", "unallocated")
    token, zone = csrd.token("--zone", "demo", "--zone", "unallocated"), "/api/v4/zones/demo"
    key = {"Idempotency-Key": "one"}
    pending = csrd.request("POST", f"{zone}/custom_csrs", token=token, json=subject(), headers=key).result["id"]
    none, other = "01890a5d-ac96-774b-bcce-b302099a8057", csrd.token("--zone", "other")
    operations = {operation["operationId"]: operation for _, _, operation in Document(document).operations()}
    certificate = operations["zone-custom-certificates-create"]["requestBody"]["content"]["application/json"]["example"]["certificate"]
    one, file = f"{zone}/custom_csrs/{pending}", {"Accept": "application/x-pem-file"}
    wrong = [
        *({name: ""} for name in ("country", "state", "locality", "organization", "common_name")),
        *({name: value} for name, value in (("sans", []), ("sans", ["a.acme-widgets.com"] * 101), ("country", "ZZ"), ("common_name", "x" * 65))),
        *({"description": value} for value in ("x" * 1025, "\u0007")),
        *({"sans": [san]} for san in ("https://acme-widgets.com", "bücher.acme-widgets.com", "shop.test", "co.uk", "shop.example.com")),
    ]
    answers = [
        *(("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(**changes)}) for changes in wrong),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"content": '{"name":', "headers": {"Content-Type": "application/json"}}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(), "headers": {"Idempotency-Key": "one two"}}),
        ("custom-csrs-create", "POST", "/api/v4/zones/unallocated/custom_csrs", {"json": subject()}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"token": None, "headers": {"Authorization": "x"}}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(), "headers": {"Content-Encoding": "gzip"}}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(description="x" * 70_000)}),
        ("custom-csrs-create", "POST", f"{zone}/custom_csrs", {"json": subject(name="x"), "headers": key}),
        ("custom-csrs-list", "GET", f"{zone}/custom_csrs?per_page=100", {}),
        ("custom-csrs-list", "GET", f"{zone}/custom_csrs", {"token": other}),
        ("custom-csrs-quota", "GET", "/api/v4/zones//custom_csrs/quota", {}),
        ("custom-csrs-get", "GET", f"{zone}/custom_csrs/1", {}),
        ("custom-csrs-get", "GET", f"{zone}/custom_csrs/{none}", {}),
        ("custom-csrs-get", "GET", one, {"headers": file}),
        ("custom-csrs-rekey", "POST", f"{one}/rekey", {}),
        ("custom-csrs-rekey", "POST", f"{one}/rekey", {"json": {"key_type": "x"}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": "-----BEGIN CERTIFICATE-----"}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate, "custom_csr_id": none}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate, "custom_csr_id": pending}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates?dry_run=yes", {"json": {"certificate": certificate, "custom_csr_id": pending}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": "", "custom_csr_id": pending}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate, "custom_csr_id": "1"}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": certificate}}),
        ("custom-certificates-create", "POST", f"{zone}/custom_certificates", {"json": {"certificate": PRIVATE_KEY, "custom_csr_id": pending}}),
        ("custom-certificates-get", "GET", f"{zone}/custom_certificates/1", {}),
        ("custom-certificates-get", "GET", f"{zone}/custom_certificates/{none.replace('-', '')}", {}),
        ("webhooks-create", "POST", f"{zone}/webhooks", {"json": {"url": "https://10.0.0.1/", "events": ["*"]}}),
        ("webhooks-create", "POST", f"{zone}/webhooks", {"json": {"url": "https://hooks.acme-widgets.com/", "events": []}}),
        ("webhooks-get", "GET", f"{zone}/webhooks/1", {}),
        ("webhooks-get", "GET", f"{zone}/webhooks/{none}", {}),
    ]
    for name, method, path, arguments in answers:
        answer = csrd.request(method, path, **({"token": token} | arguments))
        response = Document(document).follow(operations[f"zone-{name}"]["responses"][str(answer.status)])
        assert answer.envelope in Document(document).examples(response["content"]["application/json"]), (name, answer.envelope)


def test_the_examples_of_refused_certificates_have_the_form_of_real_answers(service, document):
    zone, ca = service.tenant(), Authority("Test CA")
    csr, stranger, weak = active(zone), Authority("Test CA"), Authority("Weak CA", key=small_rsa_key())
    certificates, leaf = Certificates(zone), ca.issue(csr["csr"])
    certificates.upload(csr["id"], leaf)
    sent = {
        1429: ca.issue(new_csr()),
        1444: leaf + ca.issue(new_csr()),
        1445: ca.pem,
        1447: ca.issue_by_openssl(csr["csr"], digest="sha1"),
        1475: ca.issue(csr["csr"], begins=-2 * DAY, ends=-DAY),
        1476: ca.issue(csr["csr"], ca=True),
        1477: leaf + stranger.pem,
        1478: weak.issue(csr["csr"]) + weak.pem,
        1482: leaf,
    }
    checked = Document(document)
    responses = checked.operation("POST", certificates.path)["responses"]
    for code, certificate in sent.items():
        answer = certificates.post(custom_csr_id=csr["id"], certificate=certificate)
        examples = checked.examples(checked.follow(responses[str(answer.status)])["content"]["application/json"])
        (example,) = [example for example in examples if example["errors"][0]["code"] == code]
        assert form_of(answer.envelope) == form_of(example), code


def form_of(refusal: dict) -> tuple:
    """What an error has but for the details in its text."""
    (error,) = refusal["errors"]
    return error["code"], error.get("source"), len(refusal["messages"])


class Walk:
    """Sends the examples of a document, and holds each answer against the example of its operation."""

    def __init__(self, csrd: Csrd, document: dict):
        self.csrd, self.document = csrd, Document(document)
        self.operations = {operation["operationId"]: (method.upper(), path, operation) for method, path, operation in self.document.operations()}
        # The names of the headers that were seen, by operation and status.
        self.seen = defaultdict(set)

    def send(self, name: str, tenant: Tenant, *, query: str = "", headers: dict | None = None, changes: dict | None = None, **ids: str):
        """Sends the example of an operation, with these changes; returns the result, if there is one."""
        operation_id = f"{tenant.kind}-{name}"
        method, path, operation = self.operations[operation_id]
        url = self.csrd.url + "/api/v4" + path.format(**({f"{tenant.kind}_id": tenant.id} | ids)) + query
        sent = {}
        if "requestBody" in operation:
            sent = {"json": operation["requestBody"]["content"]["application/json"]["example"] | (changes or {})}
        answer = self.csrd.client.request(method, url, headers={"Authorization": f"Bearer {tenant.token}"} | (headers or {}), **sent)
        where = (operation_id, answer.status_code)
        assert answer.status_code < 400, (where, answer.text)
        self.seen[where] |= set(answer.headers)
        content = self.document.follow(operation["responses"][str(answer.status_code)]).get("content")
        if content is None:
            assert answer.content == b"", where
            return None
        media_type = answer.headers["Content-Type"].split(";")[0]
        if media_type != "application/json":
            assert answer.text.splitlines()[0] == content[media_type]["example"].splitlines()[0], where
            return None
        found = [differences(example, answer.json()) for example in self.document.examples(content[media_type])]
        assert [] in found, (where, found)
        return answer.json()["result"]

    def unseen(self) -> set:
        """The successes that no answer was, and the documented headers that none had."""
        missing = set()
        for operation_id, (_, _, operation) in self.operations.items():
            for status, response in operation["responses"].items():
                if status < "400":
                    headers = self.seen.get((operation_id, int(status)), set())
                    names = {name.lower() for name in self.document.follow(response)["headers"]}
                    missing |= {(operation_id, status, name) for name in names - headers}
        return missing


def differences(example: object, answer: object, pointer: str = "") -> list[str]:
    """Where an answer has another shape than its example: other members, or values of another type. What is null may have a value too."""
    match example, answer:
        case dict(), dict():
            found = [f"{pointer}/{name}" for name in example.keys() ^ answer.keys()]
            return found + [place for name in example.keys() & answer.keys() for place in differences(example[name], answer[name], f"{pointer}/{name}")]
        case list(), list():
            return differences(example[0], answer[0], f"{pointer}/0") if example and answer else []
        case _:
            return [] if example is None or answer is None or type(example) is type(answer) else [pointer]


def test_the_examples_of_all_operations_are_accepted_and_have_the_shape_of_real_answers(new_csrd, document):
    csrd, ca = new_csrd("--outbound-allow-private").start(), Authority()
    account, zone = csrd.tenant("account"), csrd.tenant("zone")
    csrd.ok("zone", "grant", zone.id, "--account", account.id, "--quota", "10")
    walk = Walk(csrd, document)
    once = {"Prefer": "wait=10", "Idempotency-Key": "once"}
    for tenant in (zone, account):
        csr = walk.send("custom-csrs-create", tenant, headers=once)
        assert walk.send("custom-csrs-create", tenant, headers=once) == csr
        of_csr = {"custom_csr_id": csr["id"]}
        got = csrd.client.get(f"{csrd.url}{tenant.path}/{csr['id']}", headers={"Authorization": f"Bearer {tenant.token}"})
        walk.send("custom-csrs-get", tenant, headers={"Prefer": "wait=10"}, **of_csr)
        walk.send("custom-csrs-get", tenant, headers={"If-None-Match": got.headers["ETag"]}, **of_csr)
        walk.send("custom-csrs-get", tenant, headers={"Accept": "application/x-pem-file"}, **of_csr)
        walk.send("custom-csrs-list", tenant)
        walk.send("custom-csrs-quota", tenant)
        walk.send("custom-csrs-edit", tenant, **of_csr)
        walk.send("custom-csrs-restore", tenant, **of_csr)
        rekeyed = walk.send("custom-csrs-rekey", tenant, headers=once | {"Idempotency-Key": "again"}, **of_csr)
        assert walk.send("custom-csrs-rekey", tenant, headers=once | {"Idempotency-Key": "again"}, **of_csr) == rekeyed
        walk.send("custom-csrs-delete", tenant, custom_csr_id=rekeyed["id"])

        if tenant is zone:
            link = walk.send("handovers-create", zone, **of_csr)
            walk.send("handovers-list", zone, **of_csr)
            walk.send("handovers-delete", zone, handover_id=link["id"], **of_csr)

        # A zone uploads certificates for its account's custom CSRs too.
        chain = of_csr | {"certificate": ca.issue(csr["csr"])}
        walk.send("custom-certificates-create", zone, query="?dry_run=true", changes=chain)
        key = {"Idempotency-Key": csr["id"]}
        uploaded = walk.send("custom-certificates-create", zone, headers=key, changes=chain)
        assert walk.send("custom-certificates-create", zone, headers=key, changes=chain) == uploaded
        of_certificate = {"custom_certificate_id": uploaded["id"]}
        renewed = {"certificate": ca.issue(csr["csr"])}
        walk.send("custom-certificates-edit", zone, changes=renewed, **of_certificate)
        walk.send("custom-certificates-list", tenant)
        path = f"{csrd.url}{tenant.path.replace('csrs', 'certificates')}/{uploaded['id']}"
        tag = csrd.client.get(path, headers={"Authorization": f"Bearer {tenant.token}"}).headers["ETag"]
        walk.send("custom-certificates-get", tenant, **of_certificate)
        walk.send("custom-certificates-get", tenant, headers={"If-None-Match": tag}, **of_certificate)
        walk.send("custom-certificates-delete", tenant, **of_certificate)
        walk.send("custom-csrs-delete", tenant, **of_csr)

        hook = {"webhook_id": walk.send("webhooks-create", tenant)["id"]}
        walk.send("webhooks-get", tenant, **hook)
        walk.send("webhooks-list", tenant)
        # A ping goes nowhere else than to this machine.
        walk.send("webhooks-edit", tenant, changes={"url": "https://127.0.0.1:1/"}, **hook)
        walk.send("webhooks-ping", tenant, **hook)
        walk.send("webhooks-deliveries", tenant, **hook)
        walk.send("webhooks-delete", tenant, **hook)
    for name in ("set", "get", "delete"):
        walk.send(f"renewal-policies-{name}", zone)
    assert walk.unseen() == set()


def test_the_example_of_a_create_makes_a_custom_csr_in_the_zone_of_the_examples(new_csrd, document):
    csrd = new_csrd().start()
    create = document["paths"]["/zones/{zone_id}/custom_csrs"]["post"]
    zone = document["components"]["parameters"]["ZoneId"]["example"]
    body = create["requestBody"]["content"]["application/json"]["example"]
    answer = csrd.request("POST", f"/api/v4/zones/{zone}/custom_csrs", token=csrd.token("--zone", zone), json=body, headers={"Prefer": "wait=10"})
    assert answer.status == 201 and answer.result["status"] == "active" and answer.envelope["messages"] == []
