"""Other people's programs that read the OpenAPI document."""

import os
import subprocess
from pathlib import Path

from harness import ROOT


def target() -> Path:
    """Where `.ci/test` builds and installs."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


def npm_packages() -> Path:
    """The npm packages that read the document."""
    packages = target() / "npm-openapi/node_modules"
    assert packages.is_dir(), f"no {packages}: `.ci/test` installs it"
    return packages


def output(command: list, directory: Path, **variables: str) -> str:
    """What a command that has to succeed prints."""
    env = os.environ | variables
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=directory, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
