"""What csrd answers to requests that schemathesis makes up from the OpenAPI document; schemathesis.toml says how."""

import json
import subprocess
import sys

import pytest
import yaml
from ca import Authority, Certificates
from harness import ROOT, Tenant, environment


# Some 30 seconds of work, whatever share of a machine there is for it.
@pytest.mark.timeout(1300)
def test_every_answer_to_a_made_up_request_is_one_that_the_document_tells_of(new_csrd, tmp_path):
    csrd, root = new_csrd("--key-pool-size", "4").start(), Authority()
    csrd.ok("account", "grant", "demo", "--quota", "100000")
    csrd.ok("zone", "grant", "demo", "--quota", "100000", "--account", "demo")
    token = csrd.token("--zone", "demo", "--account", "demo")
    account, zone = (Tenant(csrd, kind, "demo", token) for kind in ("account", "zone"))
    csr = account.wait_active(account.create()["id"])
    first, second, sent = (root.issue(csr["csr"]) + root.pem for _ in range(3))
    kept, doomed = (Certificates(zone).upload(csr["id"], certificate)["id"] for certificate in (first, second))

    # The examples of the document, with what there is here.
    text = json.dumps(yaml.safe_load((ROOT / "openapi.yaml").read_text()))
    upload = json.loads(text)["paths"]["/zones/{zone_id}/custom_certificates"]["post"]["requestBody"]["content"]["application/json"]["example"]
    parameters = json.loads(text)["components"]["parameters"]
    text = text.replace(json.dumps(upload["certificate"]), json.dumps(sent)).replace(upload["custom_csr_id"], csr["id"])
    text = text.replace(parameters["CustomCertificateId"]["example"], doomed)
    (source := tmp_path / "openapi.json").write_text(text)

    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", ROOT / "tests/schemathesis.toml", "run", source, "--url", f"{csrd.url}/api/v4"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(CSRD_TOKEN=token, CSRD_CERTIFICATE_ID=kept), capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(operations) for operations in json.loads(text)["paths"].values())
    assert f"Tested: {count}" in done.stdout, done.stdout
    assert "panicked" not in csrd.log()
