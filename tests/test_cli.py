"""The command line, whose words other people's scripts rely on."""

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import sqlite3
import stat
import subprocess
import time
from contextlib import closing

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from harness import ROOT, SECRET, binary, codes, environment, refused, run, subject, wait_until
from postgres import Postgres, free_port

COMMANDS = [
    [], ["serve"], ["worker"], ["migrate"], ["backup"], ["openapi"], ["keys"], ["keys", "init"], ["keys", "check"], ["zone"], ["zone", "grant"], ["zone", "revoke"],
    ["zone", "list"], ["account"], ["account", "grant"], ["account", "revoke"], ["account", "list"], ["token"], ["token", "issue"],
    ["certificate"], ["certificate", "list"], ["certificate", "export"], ["incident"], ["incident", "plan"], ["incident", "start"], ["incident", "status"], ["incident", "stop"], ["audit"], ["completions"], ["man"],
]  # fmt: skip


# Help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_a_command_and_shows_no_value_from_the_environment(command):
    plain = run(*command, "--help")
    assert plain.returncode == 0 and "Usage: csrd" in plain.stdout and plain.stderr == ""
    variables = set(re.findall(r"\bCSRD_[A-Z_]+", run("serve", "--help").stdout))
    assert {"CSRD_LISTEN", "CSRD_DATA_DIR", "CSRD_DATABASE_URL", "CSRD_WORKERS", "CSRD_JWT_SECRET_FILE"} <= variables
    shown = run(*command, "--help", env={name: f"/secret-path/{name.lower()}" for name in variables})
    assert shown.returncode == 0 and "secret-path" not in shown.stdout + shown.stderr
    assert shown.stdout == plain.stdout


def test_every_setting_of_serve_and_migrate_names_its_environment_variable():
    for command in ("serve", "migrate"):
        text = re.sub(r"\s+", " ", run(command, "--help").stdout)
        options = set(re.findall(r" --([a-z-]+)", text)) - {"help", "version"}
        assert {"data-dir", "database-url"} <= options
        for option in options:
            assert f"[env: CSRD_{option.upper().replace('-', '_')}]" in text, option


# Bad settings


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--no-such-option"], ["--no-such-option"]),
        (["serve", "--no-such-option"], ["--no-such-option"]),
        (["no-such-command"], ["no-such-command"]),
        (["serve", "surplus"], ["surplus"]),
        (["serve", "--listen"], ["--listen"]),
        (["serve", "--listen", "nonsense"], ["--listen"]),
        (["serve", "--listen", "127.0.0.1"], ["--listen"]),
        (["serve", "--listen", "127.0.0.1:99999"], ["--listen"]),
        (["serve", "--listen", "0.0.0.0:0"], ["--listen"]),
        (["serve", "--listen", "[::]:0"], ["--listen"]),
        (["serve", "--workers", "-1"], ["--workers"]),
        (["serve", "--workers", "many"], ["--workers"]),
        (["serve", "--database-url", "mysql://localhost/csrd"], ["--database-url"]),
        (["serve", "--database-url", "sqlite:"], ["--database-url"]),
        (["serve", "--jwt-leeway", "soon"], ["--jwt-leeway"]),
        (["serve", "--jwt-leeway", "10"], ["--jwt-leeway"]),
        (["serve", "--jwt-secret-file", "/no/such/file"], ["--jwt-secret-file"]),
        (["serve", "--jwt-jwks-file", "/no/such/file"], ["--jwt-jwks-file"]),
        (["serve", "--jwt-public-key-file", "/no/such/file"], ["--jwt-public-key-file"]),
        (["serve", "--log-level", "loud"], ["--log-level"]),
        (["serve", "--log-format", "xml"], ["--log-format"]),
        (["migrate", "--database-url", "mysql://localhost/csrd"], ["--database-url"]),
        (["zone", "grant"], ["<ID>"]),
        (["zone", "grant", "no id", "--quota", "1"], ["no id"]),
        (["zone", "grant", "x" * 65], ["<ID>"]),
        (["zone", "grant", "z", "--account", "no/id"], ["--account"]),
        (["zone", "grant", "z", "--quota", "-1"], ["--quota"]),
        (["zone", "grant", "z", "--quota", "lots"], ["--quota"]),
        (["account", "grant", "a", "--quota", "1.5"], ["--quota"]),
        (["token", "issue", "--zone", "z", "--ttl", "forever"], ["--ttl"]),
        (["token", "issue", "--zone", "z", "--ttl", "0s"], ["--ttl"]),
        (["token", "issue", "--zone", "z", "--ttl", "999ms"], ["--ttl"]),
        (["token", "issue", "--zone", "z", "--ttl", "2000y"], ["--ttl"]),
        (["token", "issue", "--zone", "z", "--ttl", f"{2**64}s"], ["--ttl"]),
        (["token", "issue", "--zone", "no id"], ["--zone"]),
        (["token", "issue"], ["--zone"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_a_bad_setting_is_one_line_that_names_it_and_exit_status_2(tmp_path, arguments, words):
    refused(run(*arguments, cwd=tmp_path), 2, *words)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("--database-url", "postgres://csrd@127.0.0.1/csrd?sslpassword=hunter2"), ("--database-url", "postgres://csrd@127.0.0.1/csrd?passwd=hunter2"),
        ("--database-url", "postgres://csrd:hunter2/x@127.0.0.1/csrd"), ("--jwt-jwks-url", "https://u:hunter2@id.example/jwks"),
        ("--otlp-endpoint", "ftp://u:hunter2@traces.example"), ("--public-url", "https://u:hunter2@csrd.example"),
        ("--ari-directories", "A=https://u:hunter2@ca.example/directory"), ("--contact-url", "https://hunter2@help.example"),
    ],
)  # fmt: skip
def test_a_password_in_a_bad_setting_is_not_repeated(tmp_path, setting, value):
    variable = f"CSRD_{setting[2:].upper().replace('-', '_')}"
    for done in (run("serve", setting, value, cwd=tmp_path), run("serve", cwd=tmp_path, env={variable: value})):
        refused(done, 2, setting)
        assert "hunter2" not in done.stderr + done.stdout


def test_a_database_that_was_cut_off_counts_as_none_beside_its_master_key(tmp_path):
    assert run("keys", "init", cwd=tmp_path).returncode == 0
    (tmp_path / "csrd-data" / "csrd.db").write_bytes(b"")
    for command in ("serve", "migrate"):
        refused(run(command, cwd=tmp_path), 2, "there is a master key, ./csrd-data/master.key, but no database")
    assert (tmp_path / "csrd-data" / "csrd.db").stat().st_size == 0


def test_a_data_directory_that_is_a_file_is_a_bad_setting(tmp_path):
    (tmp_path / "file").touch()
    for command in ("serve", "migrate"):
        refused(run(command, "--data-dir", "file", cwd=tmp_path), 2, "--data-dir")


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["zone", "list"], []], ids=" ".join)
def test_a_variable_that_no_command_knows_is_a_bad_setting(tmp_path, command):
    refused(run(*command, cwd=tmp_path, env={"CSRD_NO_SUCH_THING": "1"}), 2, "CSRD_NO_SUCH_THING")


def test_the_variables_of_csrctl_stand_in_the_way_of_no_command(tmp_path):
    done = run("migrate", cwd=tmp_path, env={f"CSRD_{name}": "x" for name in ("URL", "TOKEN", "ZONE", "ACCOUNT")})
    assert done.returncode == 0, done


@pytest.mark.parametrize("command", [["openapi"], ["completions", "bash"], ["--help"], ["-h"], ["help"], ["--version"], ["serve", "--help"], ["help", "keys", "check"]], ids=" ".join)
def test_what_is_printed_without_settings_minds_none_in_the_environment(tmp_path, command):
    printed = run(*command, cwd=tmp_path)
    done = run(*command, cwd=tmp_path, env={"CSRD_NO_SUCH_THING": "1", "CSRD_WORKERS": "none", "CSRD_LISTEN": os.fsdecode(b"\xff")})
    assert (done.returncode, done.stdout, done.stderr) == (0, printed.stdout, "") and len(printed.stdout) > 5


@pytest.mark.parametrize(
    "variable",
    ["LISTEN", "WORKERS", "DATABASE_URL", "JWT_LEEWAY", "JWT_SECRET_FILE", "JWT_JWKS_FILE", "JWT_PUBLIC_KEY_FILE", "LOG_LEVEL"],
)
def test_a_bad_value_of_a_variable_is_a_bad_setting(tmp_path, variable):
    done = run("serve", cwd=tmp_path, env={f"CSRD_{variable}": "no-good-value"})
    refused(done, 2, f"CSRD_{variable}", "--" + variable.lower().replace("_", "-"))


def test_a_variable_that_is_no_text_is_a_bad_setting(tmp_path):
    done = subprocess.run(
        [binary(), "serve"], env=environment() | {b"CSRD_LISTEN": b"\xff"}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    refused(done, 2, "CSRD_LISTEN")


def test_a_server_that_is_not_there_is_an_error_that_says_so(tmp_path):
    done = run("zone", "list", "--database-url", f"postgres://127.0.0.1:{free_port()}/csrd", cwd=tmp_path)
    refused(done, 1, "refused")


def test_two_sources_of_keys_for_tokens_are_a_bad_setting(tmp_path, secret_file):
    for first, second in (("secret", "public-key"), ("secret", "jwks"), ("jwks", "public-key")):
        done = run("serve", f"--jwt-{first}-file", secret_file, f"--jwt-{second}-file", secret_file, cwd=tmp_path)
        refused(done, 2, f"--jwt-{first}-file", f"--jwt-{second}-file")
    done = run("serve", "--jwt-secret-file", secret_file, cwd=tmp_path, env={"CSRD_JWT_JWKS_FILE": str(secret_file)})
    refused(done, 2, "--jwt-secret-file", "--jwt-jwks-file")


def test_key_files_that_are_no_good_are_bad_settings(tmp_path):
    (short := tmp_path / "short").touch(0o600)
    short.write_text(SECRET[:-1] + "\n")
    (garbage := tmp_path / "garbage").write_text("garbage\n")
    for option, file in (("secret", short), ("jwks", garbage), ("public-key", garbage)):
        refused(run("serve", "--listen", "127.0.0.1:0", f"--jwt-{option}-file", file, cwd=tmp_path), 2, f"--jwt-{option}-file")


def test_a_secret_of_32_bytes_will_do(tmp_path, new_csrd, secret_file):
    csrd = new_csrd("--jwt-secret-file", str(secret_file)).start()
    token = jwt.encode({"sub": "s", "exp": time.time() + 60, "zones": ["z"]}, SECRET, "HS256")
    assert csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=token).status == 200


def test_a_data_directory_that_cannot_be_is_refused_in_one_line(tmp_path):
    (file := tmp_path / "file").write_text("")
    for command in (["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["zone", "list"], ["keys", "init"]):
        refused(run(*command, "--data-dir", file, cwd=tmp_path), None, str(file))


# First start and what comes after


def pasted(command: str) -> dict:
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def test_a_first_start_prints_what_works_when_pasted(new_csrd):
    csrd = new_csrd().start()
    assert stat.S_IMODE(csrd.data_dir.stat().st_mode) == 0o700
    assert {"csrd.db", "master.key", "signing.key"} <= {path.name for path in csrd.data_dir.iterdir()}
    for name in ("master.key", "signing.key"):
        assert stat.S_IMODE((csrd.data_dir / name).stat().st_mode) == 0o600

    def four_lines():
        lines = csrd.stdout_path.read_text().splitlines()
        return lines if len(lines) >= 4 else None

    (where, swagger, what, curl) = wait_until(four_lines, "the welcome")
    assert where == f"csrd answers on {csrd.url}; its data directory is {csrd.data_dir}" and what.startswith("A first request")
    page = csrd.client.get(swagger.removeprefix("Swagger UI: "))
    assert page.status_code == 200 and "swagger" in page.text.lower()
    answer = pasted(curl)
    assert answer["success"] is True and answer["result"]["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")

    (zone,) = csrd.ok("zone", "list").splitlines()
    assert "quota=100" in zone
    tenant = zone.split("\t")[0]
    token = csrd.token("--zone", tenant)
    rows = csrd.request("GET", f"/api/v4/zones/{tenant}/custom_csrs", token=token).result
    assert [row["id"] for row in rows] == [answer["result"]["id"]]


def test_the_pasted_command_works_in_a_shell_that_takes_brackets_for_a_pattern(new_csrd):
    csrd = new_csrd(listen="[::1]:0").start()
    curl = wait_until(lambda: re.findall("^curl .*$", csrd.stdout_path.read_text(), re.MULTILINE), "the welcome")[0]
    (word,) = [word for word in shlex.split(curl) if "[::1]" in word]
    assert f"'{word}'" in curl and pasted(curl)["success"] is True


def test_migrate_says_how_much_it_did(new_csrd):
    csrd = new_csrd()
    assert re.fullmatch(r"ran \d+ migrations: the database is up to date\n", csrd.ok("migrate"))
    assert csrd.ok("migrate") == "the database is up to date\n"


@pytest.mark.parametrize("word", ["1", "on", "yes", "true"])
def test_a_setting_that_is_on_or_off_is_on_in_whatever_words(new_csrd, word):
    csrd = new_csrd(env={"CSRD_ALLOW_WILDCARD_SANS": word}).start()
    assert csrd.tenant().create(sans=["www.acme-widgets.com", "*.acme-widgets.com"])


def test_serve_is_the_default_command(new_csrd):
    csrd = new_csrd(listen=None, env={"CSRD_LISTEN": "127.0.0.1:0"})
    csrd.spawn(binary(), "--data-dir", csrd.data_dir).wait_listening()
    assert csrd.stop() == 0


def test_a_second_start_goes_on_where_the_first_ended(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    made = zone.wait_active(zone.create()["id"])
    keys = {name: (csrd.data_dir / name).read_bytes() for name in ("master.key", "signing.key")}
    listed = csrd.ok("zone", "list")
    assert csrd.stop() == 0

    csrd.start()
    assert zone.get(made["id"]) == made
    assert {name: (csrd.data_dir / name).read_bytes() for name in keys} == keys
    assert csrd.ok("zone", "list") == listed
    zone.wait_active(zone.create()["id"])
    csrd.ok("keys", "check")


def test_the_environment_sets_what_options_do_not(new_csrd, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    env = {"CSRD_DATA_DIR": str(elsewhere), "CSRD_LISTEN": "127.0.0.1:0", "CSRD_WORKERS": "0", "CSRD_LOG_FORMAT": "json"}
    csrd = new_csrd(listen=None, env=env)
    csrd.spawn(binary()).wait_listening()
    assert (elsewhere / "csrd.db").exists() and not (elsewhere / "master.key").exists()
    assert all(json.loads(line) for line in csrd.log().splitlines())
    assert not (tmp_path / "csrd-data").exists()
    done = run("zone", "list", env={"CSRD_DATA_DIR": str(elsewhere)})
    assert done.returncode == 0 and "quota=100" in done.stdout
    # The option wins.
    done = run("zone", "list", "--data-dir", tmp_path / "third", env={"CSRD_DATA_DIR": str(elsewhere)})
    refused(done, 1, "third/csrd.db")
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("name", ["issuer", "audience", "zones-claim", "accounts-claim", "scope-claim"])
def test_an_empty_setting_of_tokens_is_a_bad_one_and_not_one_that_no_token_meets(tmp_path, name):
    variable = f"CSRD_JWT_{name.upper().replace('-', '_')}"
    for arguments, env in [((f"--jwt-{name}=",), {}), ((), {variable: ""})]:
        done = run("serve", "--listen", "127.0.0.1:0", *arguments, cwd=tmp_path, env=env)
        refused(done, 2, f"--jwt-{name}")
    assert list(tmp_path.iterdir()) == []


COMMANDS_ON_A_DATABASE = [
    ["zone", "grant", "z", "--quota", "1"], ["zone", "revoke", "z"], ["zone", "list"], ["account", "grant", "a"], ["account", "list"],
    ["certificate", "list"], ["certificate", "export", "0" * 32, "--out", "out"], ["certificate", "sync", "--out-root", "out"], ["audit"],
    ["keys", "check"], ["keys", "status"], ["incident", "status"], ["incident", "plan", "--host", "*"], ["erase", "--zone", "z", "--yes"],
    ["backup", "copy.db"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS_ON_A_DATABASE, ids=" ".join)
def test_a_command_in_a_wrong_directory_says_that_there_is_no_database_and_makes_nothing(tmp_path, command):
    done = run(*command, cwd=tmp_path)
    refused(done, 1, "there is no database ./csrd-data/csrd.db: give --data-dir or --database-url")
    assert list(tmp_path.iterdir()) == []
    done = run(*command, "--database-url", f"sqlite:{tmp_path}/other.db", cwd=tmp_path)
    refused(done, 1, f"there is no database {tmp_path}/other.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "CREATE TABLE theirs (x)"], ids=["empty", "of something else"])
def test_a_command_on_a_file_without_csrds_tables_makes_none(tmp_path, content):
    path = tmp_path / "theirs.db"
    path.touch(0o600)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(content)
    said = "is a database of another program" if content else f"there is no database {path}: give --data-dir or --database-url"
    # These make a database where there is none.
    makers = [["serve", "--listen", "127.0.0.1:0"], ["migrate"], ["keys", "init"]] if content else []
    for command in COMMANDS_ON_A_DATABASE + makers:
        done = run(*command, "--database-url", f"sqlite:{path}", cwd=tmp_path)
        refused(done, 1, said)
        with closing(sqlite3.connect(path)) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema")]
        assert names == (["theirs"] if content else [])


def test_a_command_on_a_server_without_csrds_tables_makes_none(tmp_path):
    server = Postgres()
    try:
        name = server.create_database()
        url = server.url(name)
        # `backup` copies SQLite alone.
        for command in COMMANDS_ON_A_DATABASE[:-1]:
            done = run(*command, "--database-url", url, cwd=tmp_path)
            refused(done, 1, f"there is no database {url.replace('csrd@', '')}: give --data-dir or --database-url")
        made = "SELECT count(*) FROM pg_namespace JOIN pg_class ON relnamespace = pg_namespace.oid WHERE nspname IN ('public', 'apalis')"
        assert server.sql(name, made).strip() == "0"
        assert list(tmp_path.iterdir()) == []
        assert run("migrate", "--database-url", url, cwd=tmp_path).returncode == 0
        assert run("zone", "grant", "z", "--database-url", url, cwd=tmp_path).returncode == 0
        # Who was reached and may not read is not told that nobody was reached.
        server.sql(name, "CREATE ROLE newcomer LOGIN")
        done = run("zone", "list", "--database-url", server.url(name, role="newcomer"), cwd=tmp_path)
        refused(done, 1, "see Rights in docs/how-to/postgresql.md")
        assert "permission denied" in done.stderr and not re.search("reached|at line", done.stderr), done
        done = run("zone", "list", "--database-url", server.url("nowhere"), cwd=tmp_path)
        refused(done, 1, "nowhere")
        assert not re.search("reached|at line", done.stderr), done
    finally:
        server.close()


def test_a_master_key_without_its_database_is_no_first_start_unless_a_new_database_is_asked_for(new_csrd):
    csrd = new_csrd().start()
    assert "made a new database" in csrd.log()
    assert csrd.stop() == 0
    for name in csrd.data_dir.glob("csrd.db*"):
        name.unlink()
    before = sorted(csrd.data_dir.iterdir())
    for command in (["serve", "--listen", "127.0.0.1:0"], ["migrate"]):
        refused(csrd.run(*command), 2, "--new-database")
        assert sorted(csrd.data_dir.iterdir()) == before
    assert csrd.run("migrate", env={"CSRD_NEW_DATABASE": "yes"}).returncode == 0
    csrd.start()
    zone = csrd.tenant("zone")
    zone.wait_active(zone.create()["id"])


def test_a_grant_says_where(new_csrd):
    csrd = new_csrd().start()
    assert f"in {csrd.data_dir}/csrd.db" in csrd.ok("zone", "grant", "z", "--quota", "1")


@pytest.mark.parametrize("option", ["--jwt-secret-file", "--jwt-jwks-file", "--jwt-public-key-file", "--trust-anchors", "--public-suffix-list"])
def test_a_file_that_is_a_fifo_or_a_directory_is_refused_at_once(tmp_path, option):
    os.mkfifo(tmp_path / "fifo")
    for name in ("fifo", "."):
        refused(run("serve", "--data-dir", tmp_path / "data", option, tmp_path / name), 2, "not a regular file")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["master.key", "signing.key", "secret"])
def test_a_secret_that_others_can_read_or_change_is_refused_with_the_command_that_mends_it(new_csrd, secret_file, name):
    csrd = new_csrd().start()
    assert csrd.stop() == 0
    path = secret_file if name == "secret" else csrd.data_dir / name
    arguments = ["--listen", "127.0.0.1:0", *(["--jwt-secret-file", str(secret_file)] if name == "secret" else [])]
    for mode in (0o644, 0o622, 0o660, 0o602):
        path.chmod(mode)
        refused(csrd.run("serve", *arguments), None, f"chmod 600 {path}")
    path.chmod(0o640)
    csrd.arguments = arguments
    csrd.start()
    assert "group" in csrd.log_of_this_start()
    assert csrd.stop() == 0
    if os.getuid() == 0:
        path.chmod(0o600)
        shutil.chown(path, "nobody")
        refused(csrd.run("serve", *arguments), None, "chown")
    kept = path.rename(path.with_name("kept"))
    os.mkfifo(path, 0o600)
    refused(csrd.run("serve", *arguments), None, "not a regular file")
    path.unlink()
    kept.rename(path)


def test_the_database_may_be_elsewhere(new_csrd, tmp_path):
    url = f"sqlite:{tmp_path}/other.db"
    csrd = new_csrd("--database-url", url).start()
    done = run("zone", "grant", "z", "--quota", "1", "--database-url", url)
    assert done.returncode == 0, done
    token = csrd.token("--zone", "z")
    assert csrd.request("POST", "/api/v4/zones/z/custom_csrs", token=token, json=subject()).status == 201
    assert (tmp_path / "other.db").exists() and not (csrd.data_dir / "csrd.db").exists()


def test_without_workers_no_master_key_is_needed_and_others_make_the_keys_later(new_csrd):
    csrd = new_csrd("--workers", "0").start()
    assert not (csrd.data_dir / "master.key").exists()
    zone = csrd.tenant("zone")
    made = [zone.create(key_type=key_type)["id"] for key_type in ("rsa2048", "p256v1")]
    assert csrd.stop() == 0
    assert not (csrd.data_dir / "master.key").exists()

    csrd.arguments = ["--listen", "127.0.0.1:0", "--workers", "1"]
    csrd.start()
    for csr_id in made:
        zone.wait_active(csr_id)
    assert (csrd.data_dir / "master.key").exists()


def test_a_second_process_on_the_same_data_directory_is_refused(new_csrd):
    csrd = new_csrd().start()
    refused(csrd.run("serve", "--listen", "127.0.0.1:0"), None, "csrd.db", str(csrd.data_dir))
    assert csrd.is_up("/health/ready")


@pytest.mark.parametrize("listen", ["[::ffff:127.0.0.1]:0", "localhost:0", "[::1]:0"])
def test_every_form_of_a_loopback_address_is_one(new_csrd, listen):
    csrd = new_csrd(listen=listen).start()
    assert csrd.is_up() and "the demo identity is accepted" in csrd.log()


def test_a_set_of_keys_may_begin_with_a_byte_order_mark(new_csrd, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    jwks = {"keys": [jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)]}
    (file := tmp_path / "jwks.json").write_text("\ufeff" + json.dumps(jwks))
    csrd = new_csrd("--jwt-jwks-file", str(file)).start()
    csrd.ok("zone", "grant", "z", "--quota", "1")
    token = jwt.encode({"sub": "s", "exp": time.time() + 600, "zones": ["z"]}, key, "ES256")
    assert csrd.request("GET", "/api/v4/zones/z/custom_csrs", token=token).status == 200


def test_an_address_that_is_taken_is_refused(new_csrd):
    csrd = new_csrd().start()
    other = new_csrd(name="other")
    refused(other.run("serve", "--listen", csrd.address), None, csrd.address)


def test_the_health_of_a_running_service(service):
    for path in ("/health/live", "/health/ready"):
        assert service.request("GET", path).status == 200


# The demo identity


def test_the_demo_identity_is_for_loopback_only(new_csrd):
    csrd = new_csrd().start()
    assert csrd.stop() == 0
    refused(csrd.run("serve", "--listen", "0.0.0.0:0"), 2, "--listen", "--jwt-")


def test_the_demo_identity_is_made_on_a_first_start_only(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    zone.wait_active(zone.create()["id"])
    assert csrd.stop() == 0
    (csrd.data_dir / "signing.key").unlink()
    refused(csrd.run("serve", "--listen", "127.0.0.1:0"), 2, "--jwt-")
    assert not (csrd.data_dir / "signing.key").exists()


def test_with_settings_for_tokens_nothing_of_the_demo_identity_is_made(new_csrd, secret_file):
    csrd = new_csrd("--jwt-secret-file", str(secret_file)).start()
    assert (csrd.data_dir / "master.key").exists() and not (csrd.data_dir / "signing.key").exists()
    assert csrd.ok("zone", "list") == ""
    assert "curl " not in csrd.output()
    assert stat.S_IMODE(csrd.data_dir.stat().st_mode) == 0o700


def test_with_settings_for_tokens_the_demo_identity_is_not_accepted(new_csrd, secret_file):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    assert zone.total() == 0
    assert csrd.stop() == 0
    csrd.arguments += ["--jwt-secret-file", str(secret_file)]
    csrd.start()
    assert codes(zone.request("GET").envelope) == [1003]


# Keys


def test_keys_init_makes_a_master_key_and_never_overwrites_one(new_csrd):
    csrd = new_csrd()
    csrd.ok("keys", "init")
    path = csrd.data_dir / "master.key"
    made = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(csrd.data_dir.stat().st_mode) == 0o700
    assert "there is one already" in csrd.ok("keys", "init")
    assert path.read_bytes() == made
    path.write_bytes(b"")
    refused(csrd.run("keys", "init"), None, "master.key")
    assert path.read_bytes() == b""
    path.write_bytes(b"\xef\xbb\xbf" + made.replace(b"\n", b"\r\n"))
    csrd.start()
    zone = csrd.tenant("zone")
    zone.wait_active(zone.create()["id"])
    assert csrd.stop() == 0
    path.rename(csrd.directory / "kept.key")
    # The database knows the first one: another would be in its way.
    refused(csrd.run("keys", "init"), 1, hashlib.sha256(base64.b64decode(made)).digest()[:8].hex())
    assert not path.exists()


def master_key_id(csrd) -> str:
    secret = base64.b64decode((csrd.data_dir / "master.key").read_text())
    return hashlib.sha256(secret).digest()[:8].hex()


def test_keys_check_opens_every_sealed_record_and_names_those_that_do_not_open(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    assert "no sealed record yet" in csrd.ok("keys", "check")
    made = [zone.wait_active(zone.create()["id"])["id"] for _ in range(3)]
    assert "all 3 sealed records" in csrd.ok("keys", "check") and master_key_id(csrd) in csrd.ok("keys", "check")
    key_id = master_key_id(csrd)
    assert csrd.stop() == 0
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db")) as database, database:
        database.execute("UPDATE custom_csrs SET sealed_private_key = zeroblob(500) WHERE id = ?", [made[1]])
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and made[1] in done.stdout and made[0] not in done.stdout and "1 of 3" in done.stdout
    (csrd.data_dir / "master.key").unlink()
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and key_id in done.stdout and "3 of 3" in done.stdout
    assert f"there is no {csrd.data_dir / 'master.key'}: restore" in done.stdout


def test_keys_check_opens_the_key_pair_for_the_secrets_of_webhooks_too(new_csrd):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    zone.wait_active(zone.create()["id"])
    body = {"url": "https://hooks.acme-widgets.com/csrd", "events": ["custom_csr.active"]}
    webhooks = zone.path.replace("custom_csrs", "webhooks")
    wait_until(lambda: csrd.request("POST", webhooks, token=zone.token, json=body).status == 201, "there is a key pair")
    assert "ok, all 1 sealed records were opened" in csrd.ok("keys", "check")
    assert csrd.stop() == 0
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db")) as database, database:
        assert database.execute("UPDATE webhook_keys SET sealed_private_key = zeroblob(200)").rowcount == 1
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and "the key pair for the secrets of webhooks was changed" in done.stdout and "ok," not in done.stdout
    (csrd.data_dir / "master.key").unlink()
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and "the key pair for the secrets of webhooks needs the master key" in done.stdout


def test_keys_check_says_that_the_master_key_is_missing_before_anything_is_sealed_too(new_csrd):
    csrd = new_csrd()
    csrd.ok("migrate")
    # There is none yet that could be missing.
    assert "no sealed record yet" in csrd.ok("keys", "check")
    csrd.ok("keys", "init")
    csrd.ok("keys", "check")
    (csrd.data_dir / "master.key").unlink()
    done = csrd.run("keys", "check")
    assert done.returncode == 1 and f"there is no {csrd.data_dir / 'master.key'}: restore" in done.stdout


@pytest.mark.parametrize("instead", ["nothing", "another", "garbage"])
def test_without_its_master_key_the_service_refuses_to_start_and_names_it(new_csrd, instead):
    csrd = new_csrd().start()
    zone = csrd.tenant("zone")
    made = zone.wait_active(zone.create()["id"])
    assert csrd.stop() == 0
    key_id, path = master_key_id(csrd), csrd.data_dir / "master.key"
    kept = path.rename(csrd.directory / "kept.key")
    if instead == "another":
        path.touch(0o600)
        path.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    elif instead == "garbage":
        path.touch(0o600)
        path.write_text("garbage\n")
    done = csrd.run("serve", "--listen", "127.0.0.1:0")
    assert done.returncode not in (0, 2, 101), done
    assert key_id in done.stderr or instead == "garbage" and "master.key" in done.stderr
    assert path.exists() == (instead != "nothing")

    # One that only serves the API does not need it.
    csrd.arguments = ["--listen", "127.0.0.1:0", "--workers", "0"]
    csrd.start()
    assert zone.get(made["id"]) == made
    assert csrd.stop() == 0

    kept.rename(path)
    csrd.arguments = ["--listen", "127.0.0.1:0"]
    csrd.start()
    zone.wait_active(zone.create()["id"])


# Output


def test_openapi_prints_the_committed_document():
    done = run("openapi")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == (ROOT / "openapi.yaml").read_text()


def test_the_version_is_printed():
    assert re.fullmatch(r"csrd \d+\.\d+\.\d+\n", run("--version").stdout)


def test_every_line_of_a_request_has_its_request_id(new_csrd):
    for log_format in ("text", "json"):
        csrd = new_csrd("--log-format", log_format, "--log-level", "debug", name=log_format).start()
        assert csrd.request("GET", "/api/v4/zones/z/custom_csrs", headers={"X-Request-Id": "find-me-42"}).status == 400
        assert csrd.stop() == 0
        lines = [line for line in csrd.log().splitlines() if "/api/v4/zones/z/custom_csrs" in line]
        assert lines and all("find-me-42" in line for line in lines)
        if log_format == "json":
            assert all(isinstance(json.loads(line), dict) for line in csrd.log().splitlines())


def test_a_warning_about_a_request_has_its_request_id_whatever_the_log_level(new_csrd):
    csrd = new_csrd("--log-level", "warn").start()
    zone = csrd.tenant("zone")
    with closing(sqlite3.connect(csrd.data_dir / "csrd.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert zone.request("POST", json=subject(), headers={"X-Request-Id": "find-me-43"}).status == 503
    # Lines are written in a thread of their own: soon after the answer.
    (line,) = wait_until(lambda: [line for line in csrd.log().splitlines() if "1471" in line], "the warning is logged")
    assert "find-me-43" in line


def test_log_level_says_how_much_is_logged(new_csrd):
    # The line with the address comes all the same: scripts wait for it.
    csrd = new_csrd("--log-level", "error").start()
    csrd.request("GET", "/nothing", headers={"X-Request-Id": "not-logged"})
    assert csrd.stop() == 0
    assert "not-logged" not in csrd.log()
