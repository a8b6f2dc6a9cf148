"""Settings: a file, variables over it, and everything that is wrong with them at once."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from gateway.__main__ import main
from gateway.settings import Settings, SettingsError, load_settings, without_effect

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers import StoreServer

UPSTREAM = """
[[upstream]]
region = "us-east-1"
account = "123456789012"
"""
# DESIGN.md, section 10, letter by letter.
DESIGN = """
[http]
host = "127.0.0.1"            # the image sets 0.0.0.0
port = 8080
keepalive_seconds = 75        # above the load balancer's idle time
unready_seconds = 5           # first part of the drain: unready, still serving
drain_seconds = 20
wait_seconds = 2              # submitservicejob only
duplicates = "replay"         # or "reject"
payload_check = "strict"      # "warn", "off"
require_token = false
trusted_proxies = []

[store]
url = "redis://127.0.0.1:6379/0"   # rediss://, unix://, redis+sentinel://, redis+cluster://
prefix = "gw"
durability = "fsync"
replicas = 1
max_queued = 1000000
max_queued_bytes = 4000000000
retention_seconds = 604800
alias_retention_seconds = 2592000

[auth]
mode = ["none"]

[forward]
call_timeout_seconds = 20
lease_seconds = 60            # refused at start if under twice the call time-out
max_attempts = 10
attempt_window_seconds = 600
concurrency = 16              # calls in flight, per process and upstream
max_shares_per_queue = 500

[[upstream]]
name = "main"
region = "us-east-1"
account = "123456789012"
rate = 5.0
burst = 1
describe_rate = 30.0
queues = ["*"]
# endpoint_url, role_arn, submission_tag = true

[[share]]
queue = "training"
share = "vision"              # "*": each share of the queue that has no section
rate = 2.0                    # submissions a second that callers may send; 0 = no limit
burst = 100
weight = 1.0
max_queued = 10000
over_limit = "reject"         # or "delay"
"""


def loaded(folder: Path, text: str, **variables: str) -> Settings:
    (folder / "gateway.toml").write_text(text, encoding="utf-8")
    return load_settings(folder / "gateway.toml", variables)


def problems(folder: Path, text: str = UPSTREAM, **variables: str) -> list[str]:
    """What is wrong, with the file's own name left out."""
    with pytest.raises(SettingsError) as raised:
        loaded(folder, text, **variables)
    return [one.replace(f"{folder / 'gateway.toml'}: ", "file: ") for one in raised.value.problems]


def test_the_example_of_the_design_loads(tmp_path: Path) -> None:
    settings = loaded(tmp_path, DESIGN)
    assert settings.upstream[0].name == "main"
    assert (settings.share[0].queue, settings.share[0].rate) == ("training", 2.0)


def test_the_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    written, bare = (
        loaded(tmp_path, DESIGN),
        loaded(tmp_path, UPSTREAM + '[[share]]\nqueue = "training"\nshare = "vision"'),
    )
    for section in ("http", "store", "auth", "forward", "upstream"):
        assert getattr(bare, section) == getattr(written, section), section
    assert bare.share[0] == written.share[0].model_copy(update={"rate": 0.0})
    assert bare.upstream[0].submission_tag is True


def test_without_a_file_the_variables_are_enough() -> None:
    settings = load_settings(
        None, {"GATEWAY_UPSTREAM__REGION": "us-east-1", "GATEWAY_UPSTREAM__ACCOUNT": "123456789012"}
    )
    assert (settings.upstream[0].region, settings.upstream[0].account) == ("us-east-1", "123456789012")


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UPSTREAM)
    with pytest.raises(ValueError, match="frozen"):
        settings.http.port = 1


OVERRIDES: dict[str, tuple[str, Any]] = {
    "GATEWAY_HTTP__HOST": ("0.0.0.0", "http.host"),  # noqa: S104
    "GATEWAY_HTTP__PORT": ("0", "http.port"),
    "GATEWAY_HTTP__REQUIRE_TOKEN": ("true", "http.require_token"),
    "GATEWAY_HTTP__UNREADY_SECONDS": ("0.5", "http.unready_seconds"),
    "GATEWAY_HTTP__TRUSTED_PROXIES": ('["10.0.0.0/8"]', "http.trusted_proxies"),
    "GATEWAY_STORE__URL": ("unix:///run/store.sock", "store.url"),
    "GATEWAY_AUTH__MODE": ('["none"]', "auth.mode"),
    "GATEWAY_FORWARD__CONCURRENCY": ("8", "forward.concurrency"),
    "GATEWAY_UPSTREAM__RATE": ("4.5", "upstream.0.rate"),
    "GATEWAY_UPSTREAM__0__BURST": ("2", "upstream.0.burst"),
    "GATEWAY_UPSTREAM__ENDPOINT_URL": ("http://127.0.0.1:9100", "upstream.0.endpoint_url"),
    "GATEWAY_UPSTREAM__QUEUES": ('["training*", "nlp"]', "upstream.0.queues"),
    "GATEWAY_UPSTREAM__SUBMISSION_TAG": ("false", "upstream.0.submission_tag"),
    "GATEWAY_SHARE__WEIGHT": ("3", "share.0.weight"),
    "GATEWAY_SHARE__1__QUEUE": ("nlp", "share.1.queue"),
    "GATEWAY_SHARE__1__SHARE": ("*", "share.1.share"),
}


def test_any_value_can_be_overridden_by_a_variable(tmp_path: Path) -> None:
    settings = loaded(tmp_path, DESIGN, **{variable: text for variable, (text, _) in OVERRIDES.items()})
    for text, place in OVERRIDES.values():
        value: Any = settings
        for step in place.split("."):
            value = value[int(step)] if step.isdigit() else getattr(value, step)
        expected = tuple(json.loads(text)) if isinstance(value, tuple) else text
        assert value == expected or str(value).lower() == text or value == float(text), place


@pytest.mark.parametrize(
    "text",
    [
        '[{region = "us-east-1", account = "123456789012", rate = 3}]',
        '[{"region": "us-east-1", "account": "123456789012", "rate": 3}]',
    ],
    ids=["TOML", "JSON"],
)
def test_a_whole_list_can_be_given_by_a_variable(text: str) -> None:
    assert load_settings(None, {"GATEWAY_UPSTREAM": text}).upstream[0].rate == 3.0


def test_an_account_is_a_name_and_no_number(tmp_path: Path) -> None:
    settings = loaded(tmp_path, UPSTREAM, GATEWAY_UPSTREAM__ACCOUNT="012345678901")
    assert settings.upstream[0].account == "012345678901"


def test_all_problems_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    text = """
[http]
port = 70000
colour = "red"
[store]
url = "http://example.org"
[forward]
max_attempts = 0
[[upstream]]
region = "nowhere"
[[share]]
queue = "training"
rate = -1
[more]
"""
    found = problems(
        tmp_path, text, GATEWAY_STORE__REPLICAS="none", GATEWAY_HTTP__DUPLICATES="drop", GATEWAY_X__Y__Z="1"
    )
    places = sorted(one.rsplit(": ", 1)[0] for one in found)
    assert places == sorted(
        [
            "file: http.port",
            "file: http.colour",
            "file: store.url",
            "file: forward.max_attempts",
            "file: upstream.0.region",
            "file: upstream.0.account",
            "file: share.0.share",
            "file: share.0.rate",
            "file: more",
            "GATEWAY_STORE__REPLICAS",
            "GATEWAY_HTTP__DUPLICATES",
            "GATEWAY_X__Y__Z",
        ]
    )


def test_a_problem_inside_a_variables_list_names_the_variable(tmp_path: Path) -> None:
    found = problems(tmp_path, "", GATEWAY_UPSTREAM='[{region = "us-east-1"}]')
    assert found == ["GATEWAY_UPSTREAM: 0.account: is required"]


@pytest.mark.parametrize(
    "variable",
    [
        "GATEWAY_HTTP__PORT__X__Y",
        "GATEWAY_UPSTREAM__0__QUEUES__X",
        "GATEWAY_UPSTREAM__5__RATE",
        "GATEWAY_HTTP__HOST__X",
    ],
)
def test_a_variable_that_names_nothing_is_told(tmp_path: Path, variable: str) -> None:
    assert problems(tmp_path, DESIGN, **{variable: "1"}) == [f"{variable}: names no setting"]


@pytest.mark.parametrize("variable", ["GATEWAY_HTTP_PORT", "GATEWAY_DEBUG", "GATEWAY_HTTP__PROT", "GATEWAY_PORT"])
def test_a_misspelled_variable_is_not_ignored(tmp_path: Path, variable: str) -> None:
    (one,) = problems(tmp_path, **{variable: "8080"})
    assert one.startswith(f"{variable}: is no setting")


def test_what_kubernetes_says_of_services_is_no_setting(tmp_path: Path) -> None:
    links = {
        "GATEWAY_SERVICE_HOST": "10.0.0.7",
        "GATEWAY_SERVICE_PORT": "8080",
        "GATEWAY_SERVICE_PORT_HTTP": "8080",
        "GATEWAY_PORT": "tcp://10.0.0.7:8080",
        "GATEWAY_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "GATEWAY_PORT_8080_TCP_PROTO": "tcp",
        "GATEWAY_PORT_8080_TCP_PORT": "8080",
        "GATEWAY_PORT_8080_TCP_ADDR": "10.0.0.7",
        "GATEWAY_STORE_SERVICE_HOST": "10.0.0.8",
        "GATEWAY_STORE_PORT": "tcp://10.0.0.8:6379",
    }
    assert loaded(tmp_path, UPSTREAM, **links) == loaded(tmp_path, UPSTREAM)


def test_a_file_that_cannot_be_read_or_is_no_toml_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml: cannot be read: No such file"):
        load_settings(tmp_path / "missing.toml", {})
    assert "is not TOML" in problems(tmp_path, "[http\nport = 1")[0]
    (tmp_path / "gateway.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(SettingsError, match="is not TOML"):
        load_settings(tmp_path / "gateway.toml", {})


def test_no_value_is_told_for_it_may_be_a_secret(tmp_path: Path) -> None:
    (one,) = problems(tmp_path, UPSTREAM + '[store]\nurl = "http://:hunter2@example.org"')
    assert "hunter2" not in one


def test_a_misspelled_setting_is_told_with_the_one_that_it_resembles(tmp_path: Path) -> None:
    (one,) = problems(tmp_path, UPSTREAM + "[http]\nprot = 1")
    assert one == "file: http.prot: is no setting; did you mean port?"
    (one,) = problems(tmp_path, UPSTREAM + '[[share]]\nqueue = "q"\nshare = "s"\nmaxQueued = 3')
    assert one == "file: share.0.maxQueued: is no setting; did you mean max_queued?"


def test_what_is_set_without_effect_is_noted_and_no_error(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        UPSTREAM.strip()
        + """
queues = ["train*"]
[http]
trusted_proxies = ["10.0.0.0/8"]
[[share]]
queue = "other"
share = "s"
""",
    )
    notes = without_effect(settings)
    assert [note.split()[0] for note in notes] == ["http.trusted_proxies", "share.0"]
    assert without_effect(loaded(tmp_path, DESIGN)) == []


@pytest.mark.parametrize("url", ["redis://h:99999/0", "redis://h:port/0", "redis://h/abc", "redis://h:0"])
def test_an_address_of_a_store_that_can_be_none_is_refused(tmp_path: Path, url: str) -> None:
    (one,) = problems(tmp_path, UPSTREAM, GATEWAY_STORE__URL=url)
    assert one.startswith("GATEWAY_STORE__URL: must be like redis://")


REFUSED = {
    "two sections of one share": (
        UPSTREAM + '[[share]]\nqueue = "a"\nshare = "b"\n' * 2,
        "file: share: more than one section for a/b",
    ),
    "no upstream": (
        "[http]",
        (
            "file: upstream: at least one [[upstream]] with region and account is needed: say --config or "
            "GATEWAY_CONFIG, or try `gateway dev`, which needs none"
        ),
    ),
    "a lease that calls outlive": (
        UPSTREAM + "[forward]\ncall_timeout_seconds = 30.5\nlease_seconds = 60",
        "file: forward: lease_seconds must be at least twice call_timeout_seconds",
    ),
    "a drain with no time left": (
        UPSTREAM + "[http]\nunready_seconds = 20\ndrain_seconds = 20",
        "file: http: unready_seconds is the first part of drain_seconds and must be shorter",
    ),
    "two upstreams of one account": (
        UPSTREAM + UPSTREAM,
        "file: upstream: two upstreams have the same account and Region, or hash alike: merge them",
    ),
    "two upstreams of one name": (
        UPSTREAM + UPSTREAM.replace("us-east-1", "eu-west-1"),
        "file: upstream: two upstreams have the same name",
    ),
    "a sentinel without a name": (
        UPSTREAM + '[store]\nurl = "redis+sentinel://:secret@a,b"',
        "file: store.url: must be like redis+sentinel://host:26379,host:26379/name-of-the-primary/0",
    ),
    "a cluster with a database": (
        UPSTREAM + '[store]\nurl = "redis+cluster://:secret@a/3"',
        "file: store.url: must be like redis+cluster://host:6379,host:6379 (a cluster has the database 0 alone)",
    ),
    "a node without a port that can be": (
        UPSTREAM + '[store]\nurl = "redis+cluster://a:1,b:x"',
        "file: store.url: must be like redis+cluster://host:6379,host:6379 (a cluster has the database 0 alone)",
    ),
    "authentication": (
        UPSTREAM + '[auth]\nmode = ["keys"]',
        'file: auth.mode: only ["none"] is built yet; put the gateway behind something that authenticates',
    ),
    "another account's role": (
        UPSTREAM + 'role_arn = "arn:aws:iam::999999999999:role/x"',
        "file: upstream.0: role_arn is of another account than this upstream: its jobs would go there",
    ),
    "no role": (
        UPSTREAM + 'role_arn = "arn:aws:iam::1:role/x"',
        "file: upstream.0.role_arn: must be a role's ARN such as arn:aws:iam::123456789012:role/batch-gateway",
    ),
    "a rate without end": (
        UPSTREAM + '[[share]]\nqueue = "a"\nshare = "b"\nrate = 5e-324',
        "file: share.0.rate: should be 0 or at least 0.001",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_or_is_not_built_is_refused_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert problems(tmp_path, text) == [sentence]


@pytest.mark.parametrize(
    "role_arn",
    [
        "arn:aws:iam::123456789012:role/batch-gateway",
        "arn:aws-cn:iam::123456789012:role/teams/vision/gateway_1+=,.@-",
        "arn:aws-us-gov:iam::123456789012:role/x",
    ],
)
def test_a_role_of_any_partition_and_path_is_taken(tmp_path: Path, role_arn: str) -> None:
    assert loaded(tmp_path, UPSTREAM, GATEWAY_UPSTREAM__ROLE_ARN=role_arn).upstream[0].role_arn == role_arn


@pytest.mark.parametrize(
    "role_arn",
    [
        "batch-gateway",
        "arn:aws:iam::123456789012:user/batch-gateway",
        "arn:aws:sts::123456789012:assumed-role/batch-gateway/x",
        "arn:aws:iam::12345678901:role/batch-gateway",
        "arn:aws:iam::123456789012:role/",
        "arn:aws:iam::123456789012:role/a b",
        "arn:aws:iam::123456789012:role/" + "x" * 65,
        "arn:aws:iam::123456789012:role/batch-gateway\n",
    ],
)
def test_what_is_no_role_is_refused(tmp_path: Path, role_arn: str) -> None:
    (one,) = problems(tmp_path, UPSTREAM, GATEWAY_UPSTREAM__ROLE_ARN=role_arn)
    assert one.startswith("GATEWAY_UPSTREAM__ROLE_ARN: must be a role's ARN")


@pytest.mark.parametrize("number", ["inf", "nan"])
@pytest.mark.parametrize("place", ["http.drain_seconds", "store.retention_seconds", "forward.lease_seconds"])
def test_a_time_without_end_is_refused(tmp_path: Path, place: str, number: str) -> None:
    section, key = place.split(".")
    (one,) = problems(tmp_path, f"[{section}]\n{key} = {number}\n{UPSTREAM}")
    assert one == f"file: {place}: should be a finite number"


def test_a_lease_of_exactly_twice_the_call_is_enough(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, UPSTREAM, GATEWAY_FORWARD__LEASE_SECONDS="10", GATEWAY_FORWARD__CALL_TIMEOUT_SECONDS="5"
    )
    assert settings.forward.lease_seconds == 10


# ---- gateway check


def check(folder: Path, *arguments: str, url: str, durability: str = "memory") -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `gateway check` over this store."""
    config = folder / "gateway.toml"
    config.write_text(f'{UPSTREAM}\n[store]\nurl = "{url}"\ndurability = "{durability}"\n', encoding="utf-8")
    result = CliRunner().invoke(main, ["check", "--config", str(config), *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_is_content_with_a_store_that_keeps_the_promise(tmp_path: Path, valkey: StoreServer) -> None:
    code, out, err = check(tmp_path, url=valkey.url)
    assert (code, err) == (0, "")
    assert "sound" in out
    code, out, _ = check(tmp_path, "--json", url=valkey.url)
    assert (code, json.loads(out)) == (0, {"ok": True, "problems": [], "notes": []})


def test_check_fails_where_the_store_cannot_keep_the_promise(tmp_path: Path, valkey: StoreServer) -> None:
    code, out, err = check(tmp_path, url=valkey.url, durability="fsync")
    assert (code, out) == (1, "")
    assert "set appendonly yes" in err
    code, out, _ = check(tmp_path, "--json", url=valkey.url, durability="fsync")
    answer = json.loads(out)
    assert (code, answer["ok"], len(answer["problems"])) == (1, False, 1)


def test_check_fails_with_every_problem_of_the_settings(tmp_path: Path) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("[http]\nport = 70000\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["check", "--config", str(config)])
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 2)
    result = CliRunner().invoke(main, ["check", "--json"], env={"GATEWAY_CONFIG": str(config)})
    assert (result.exit_code, len(json.loads(result.stdout)["problems"])) == (1, 2)


def test_check_says_that_a_store_is_not_reachable(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        url = f"redis://:hunter2@127.0.0.1:{taken.getsockname()[1]}/0"
        code, out, err = check(tmp_path, url=url)
        assert (code, out, "hunter2" in err) == (3, "", False)
        assert err.startswith("store.url: the store does not answer")
        code, out, _ = check(tmp_path, "--json", url=url)
        assert (code, json.loads(out)["ok"]) == (3, False)


@pytest.mark.parametrize("arguments", [["check", "--colour"], ["chekc"], ["check", "more"]])
def test_wrong_use_is_told_apart(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, arguments).exit_code == 2
