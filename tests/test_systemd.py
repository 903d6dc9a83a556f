"""The systemd units: systemd accepts them, what they start is there, and they leave a process little that it may do."""

import re
import subprocess

import pytest
from harness import ROOT, binary, run

UNITS = sorted((ROOT / "deploy/systemd").glob("*.service"))
NAMES = ["csrd-api", "csrd-migrate", "csrd-serve", "csrd-worker"]


def analyze(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_there_is_a_unit_for_each_role():
    assert [unit.stem for unit in UNITS] == NAMES


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_exposed_by_less_than_two(unit, record_property):
    # The threshold is in tenths.
    done = analyze("security", "--offline=true", "--threshold=19", unit)
    record_property("figures", done.stdout.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_has_nothing_to_say_against_a_unit(unit, tmp_path):
    placed = tmp_path / unit.name
    placed.write_text(unit.read_text().replace("/usr/bin/csrd", str(binary())))
    done = analyze("verify", "--man=no", placed)
    # It may also complain of units that a machine has beside.
    assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if unit.name in line], done
    # It sees what is wrong, too.
    placed.write_text(placed.read_text().replace("ProtectSystem=strict", "ProtectSystem=perhaps"))
    assert "perhaps" in analyze("verify", "--man=no", placed).stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_a_unit_starts_is_a_command_of_csrd_with_options_that_it_has(unit):
    (command,) = re.findall(r"^ExecStart=/usr/bin/csrd (.+)$", unit.read_text(), re.MULTILINE)
    done = run(*command.split(), "--help")
    assert done.returncode == 0 and f" {command.split()[0]} [OPTIONS]" in done.stdout, done
