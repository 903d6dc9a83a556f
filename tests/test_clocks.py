"""Clocks that differ: an API process or a worker whose clock is not the database's, on PostgreSQL."""

import re
import uuid
from pathlib import Path

import httpx
import pytest
from harness import Tenant, environment, subject, wait_until
from test_faults import Api, Cluster, Worker, new_cluster, postgres, settle  # noqa: F401

HOUR = 3600


class Clock:
    """A clock that is some seconds off and can be set while processes look at it, by libfaketime. Their timers run as ever."""

    def __init__(self, directory: Path, seconds: int):
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        assert libraries, "these tests need the Debian package faketime"
        self.file = directory / f"clock-{uuid.uuid4().hex}"
        self.set(seconds)
        self.env = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # Looked at each time.
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}s\n")
        # No process is to read half of it.
        new.rename(self.file)


def api_of(cluster: Cluster, clock: Clock, name: str) -> Api:
    env = {name: value for name, value in cluster.apis[0].env.items() if name.startswith("CSRD_")}
    cluster.apis.append(Api(cluster.directory / name, "--workers", "0", env=env | clock.env).start(ready=False))
    return cluster.apis[-1]


def worker_of(cluster: Cluster, clock: Clock, name: str) -> Worker:
    cluster.worker_env = environment(**{key: value for key, value in cluster.worker_env.items() if key.startswith("CSRD_")}, **clock.env)
    cluster.workers.append(Worker(cluster, name))
    return cluster.workers[-1]


def long_lived(cluster: Cluster) -> Tenant:
    """A tenant whose token is good by clocks that are hours off."""
    tenant = cluster.apis[0].tenant(quota=1_000)
    tenant.token = cluster.apis[0].token("--zone", tenant.id, "--ttl", "100d")
    return tenant


def readiness(url: str) -> tuple[int, str]:
    response = httpx.get(url, trust_env=False, timeout=10)
    errors = response.json()["errors"]
    assert response.status_code == 200 or errors[0]["code"] == 1471, errors
    return response.status_code, errors[0]["message"] if errors else ""


def names_the_difference(text: str, seconds: int) -> bool:
    """Give or take what a busy machine needs to ask."""
    told = re.findall(r"clock is (\d+) s (ahead of|behind) the database's", text)
    return any(abs(int(number) - abs(seconds)) <= 10 and (word == "behind") == (seconds < 0) for number, word in told)


def check_told(url: str, log, seconds: int) -> None:
    """Over 5 s apart is a warning, over 60 s is not ready; both name the difference."""
    wait_until(lambda: names_the_difference(log(), seconds), "the log has the difference", 60)
    status, message = readiness(url)
    assert status == (503 if abs(seconds) > 60 else 200)
    assert status == 200 or names_the_difference(message, seconds), message


OFFSETS = [15, 90, HOUR, -HOUR]


def test_custom_csrs_of_an_api_whose_clock_differs_become_active_and_the_difference_is_told(new_cluster):  # noqa: F811
    cluster = new_cluster(apis=1, workers=1)
    tenant = long_lived(cluster)
    clock = Clock(cluster.directory, OFFSETS[0])
    api = api_of(cluster, clock, "off")
    there = cluster.on(1, tenant)
    for seconds in OFFSETS:
        clock.set(seconds)
        made = [there.create(key_type=key_type)["id"] for key_type in ("p256v1", "rsa2048", "p256v1")]
        # Not only when the database's clock has come so far.
        for csr_id in made:
            tenant.wait_active(csr_id)
        check_told(f"{api.url}/health/ready", api.log, seconds)
    clock.set(0)
    wait_until(lambda: api.is_up("/health/ready"), "it is ready once the clock is right")


def test_a_worker_whose_clock_differs_makes_keys_and_the_difference_is_told(new_cluster):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0)
    tenant = long_lived(cluster)
    clock = Clock(cluster.directory, OFFSETS[0])
    worker = worker_of(cluster, clock, "off")
    for seconds in OFFSETS:
        clock.set(seconds)
        made = [tenant.create(key_type=key_type)["id"] for key_type in ("p256v1", "rsa2048", "p256v1")]
        for csr_id in made:
            tenant.wait_active(csr_id)
        check_told(worker.health, worker.log_path.read_text, seconds)
    clock.set(0)
    wait_until(worker.is_ready, "it is ready once the clock is right")


@pytest.mark.parametrize("seconds", [25 * HOUR, -25 * HOUR])
def test_after_clocks_jump_by_more_than_a_day_and_back_nothing_is_pending_lost_or_forgotten(new_cluster, seconds):  # noqa: F811
    cluster = new_cluster(apis=1, workers=0)
    cluster.worker_env |= {"CSRD_PURGE_AFTER": "1m", "CSRD_KEY_POOL_SIZE": "2"}
    tenant, headers = long_lived(cluster), {"Idempotency-Key": "before-the-jump"}
    first = tenant.request("POST", json=subject(), headers=headers).result["id"]
    clock = Clock(cluster.directory, 0)
    api, worker = api_of(cluster, clock, "jumps"), worker_of(cluster, clock, "worker")
    tenant.wait_active(first)
    # One that does not jump, and has jobs too.
    cluster.worker_env = environment(**{key: value for key, value in cluster.worker_env.items() if key.startswith("CSRD_")})
    cluster.workers.append(Worker(cluster, "steady"))
    there = cluster.on(1, tenant)
    made = {first} | {tenant.create(key_type="rsa2048")["id"] for _ in range(6)}
    clock.set(seconds)
    made |= {there.create(key_type=key_type)["id"] for key_type in ("rsa2048", "p256v1") for _ in range(3)}
    check_told(f"{api.url}/health/ready", api.log, seconds)
    # The worker has swept and purged by now.
    wait_until(lambda: not worker.is_ready(), "the worker is not ready")
    clock.set(0)
    made |= {there.create()["id"] for _ in range(3)}
    rows = settle(tenant)
    assert {row["id"] for row in rows if row["status"] == "active"} == made
    wait_until(lambda: api.is_up("/health/ready") and worker.is_ready(), "both are ready again", 60)
    # Not purged by a clock that was ahead.
    assert tenant.request("POST", json=subject(), headers=headers).result["id"] == first
