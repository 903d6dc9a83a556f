"""Answers that wait, for clients that ask for it and for those that cannot."""

import concurrent.futures

import cloudflare
import httpx
import pytest
from harness import subject, wait_until
from test_faults import new_cluster, postgres  # noqa: F401


def test_with_create_wait_the_official_client_has_the_csr_in_the_answer_to_its_post(new_csrd):
    tenant = new_csrd("--create-wait", "20").start().tenant()
    client = cloudflare.Cloudflare(base_url=f"{tenant.service.url}/client/v4", api_token=tenant.token, max_retries=0)
    made = client.custom_csrs.create(zone_id=tenant.id, **subject(key_type="rsa2048"))
    assert made.csr.startswith("-----BEGIN CERTIFICATE REQUEST-----")


@pytest.mark.parametrize("poster, waiter", [(0, 1), (1, 0)])
def test_a_wait_in_one_process_is_ended_by_a_result_of_another(new_cluster, poster, waiter):  # noqa: F811
    cluster = new_cluster(apis=2, workers=1)
    tenant = cluster.apis[0].tenant()
    made = cluster.on(poster, tenant).create(key_type="rsa2048")
    answer = cluster.on(waiter, tenant).request("GET", f"/{made['id']}", headers={"Prefer": "wait=30"})
    assert answer.result["status"] == "active"
    assert answer.headers["Preference-Applied"] == "wait=30"


def test_equal_posts_with_one_key_to_two_processes_make_one_custom_csr(new_cluster):  # noqa: F811
    cluster = new_cluster(apis=2, workers=0)
    tenant = cluster.apis[0].tenant()
    headers = {"Authorization": f"Bearer {tenant.token}", "Idempotency-Key": "one"}
    answers = [
        httpx.post(cluster.apis[n % 2].url + tenant.path, headers=headers, json=subject(), trust_env=False, timeout=30) for n in range(10)
    ]
    assert {(answer.status_code, answer.json()["result"]["id"]) for answer in answers} == {(201, answers[0].json()["result"]["id"])}
    assert tenant.total() == 1
    # The same key of another subject is another key.
    other = cluster.apis[0].token("--zone", tenant.id, "--subject", "somebody-else")
    answer = httpx.post(cluster.apis[0].url + tenant.path, headers=headers | {"Authorization": f"Bearer {other}"}, json=subject(), trust_env=False)
    assert answer.json()["result"]["id"] != answers[0].json()["result"]["id"]


def test_requests_that_wait_hold_no_connection(new_cluster):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0, pool_size=1)
    tenant = cluster.apis[0].tenant()
    made = tenant.create()["id"]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(tenant.request, "GET", f"/{made}", headers={"Prefer": "wait=30"}) for _ in range(20)]
        wait_until(lambda: all(request.running() for request in waiting), "all are under way")
        for _ in range(20):
            tenant.create()
        assert not any(request.done() for request in waiting)
        assert tenant.request("DELETE", f"/{made}").status == 200
        assert {request.result().status for request in waiting} == {404}
