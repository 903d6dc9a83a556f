"""Tokens of a real identity provider, with the recipe of the documents."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

from harness import ROOT, codes, environment, subject
from pages import DOCS, blocks, run_shell


@contextmanager
def identity_provider(directory: Path):
    """A real one, npm's oidc-provider: its issuer, and what gives it new keys."""
    packages = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "npm/node_modules"
    assert (packages / "oidc-provider").is_dir(), "run .ci/test, which installs it"
    (directory / "node_modules").symlink_to(packages.resolve())
    script = directory / "identity_provider.mjs"
    script.write_text((ROOT / "tests/identity_provider.mjs").read_text())
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    process = subprocess.Popen(["node", script.name], cwd=directory, env=environment(), **pipes)
    try:
        issuer = process.stdout.readline().strip()

        def rotate() -> None:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "rotated\n"

        yield issuer, rotate
    finally:
        process.kill()
        process.communicate()


def test_tokens_of_a_real_identity_provider_are_accepted_before_and_after_it_replaces_its_keys(new_csrd, tmp_path):
    with identity_provider(tmp_path) as (issuer, rotate):
        (recipe,) = blocks(DOCS / "how-to/identity-provider.md", "bash")

        def token(scope: str) -> str:
            assert "custom_csrs:write" in recipe
            run_shell(tmp_path, recipe.replace("custom_csrs:write", scope), ISSUER=issuer, CLIENT="acme:secret")
            return (tmp_path / "token").read_text().strip()

        tokens = token("custom_csrs:write"), token("custom_csrs:read")
        settings = dict(line.split("=", 1) for line in (tmp_path / "csrd.env").read_text().splitlines())
        csrd = new_csrd("--workers", "0", "--key-pool-size", "0", "--auth-failure-limit", "0", env=settings).start()
        csrd.ok("zone", "grant", "demo", "--quota", "10")

        def post(token: str) -> tuple[int, list[int]]:
            answer = csrd.request("POST", "/api/v4/zones/demo/custom_csrs", token=token, json=subject())
            return answer.status, codes(answer.envelope)

        assert [post(token) for token in tokens] == [(201, []), (403, [1404])]
        rotate()
        assert post(token("custom_csrs:write")) == (201, [])
        assert post(tokens[0]) == (401, [1002])
