"""File and environment → frozen settings, once. All problems at once, each with its place."""

from __future__ import annotations

import json
import os
import re
import tomllib
from contextlib import suppress
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.core.identity import upstream_tag
from gateway.store.store_url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PREFIX = "GATEWAY_"
NOT_SETTINGS = frozenset({"GATEWAY_CONFIG", "GATEWAY_URL"})
# Kubernetes tells each container of the services beside it: of one called `gateway` by GATEWAY_PORT=tcp://10.0.0.7:8080.
_SERVICE_LINK = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_URL = re.compile(r"(\w+_)?PORT=(tcp|udp|sctp)://.*")

# A path of up to 512 characters, a name of up to 64: what IAM's CreateRole takes.
_ROLE_ARN = r"arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/([!-\x7f]{1,510}/)?[A-Za-z0-9_+=,.@-]{1,64}"
_ROLE_ARN_SENTENCE = "must be a role's ARN such as arn:aws:iam::123456789012:role/batch-gateway"

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _like(pattern: str, sentence: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return text

    return check


def _none_or_one_in_1000_seconds(rate: float) -> float:
    if 0 < rate < 1e-3:  # noqa: PLR2004 - as PATCH /v1/shares has it: slower would be no limit, by overflow
        raise ValueError("should be 0 or at least 0.001")
    return rate


class SettingsError(Exception):
    """What is wrong with the settings, one line a problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        coerce_numbers_to_str=True,
        hide_input_in_errors=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class HttpSettings(_Section):
    """The HTTP face. `unready_seconds` is the first part of `drain_seconds`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    keepalive_seconds: Seconds = 75
    unready_seconds: Annotated[float, Field(ge=0)] = 5
    drain_seconds: Seconds = 20
    wait_seconds: Annotated[float, Field(ge=0, le=30)] = 2
    duplicates: Literal["replay", "reject"] = "replay"
    payload_check: Literal["strict", "warn", "off"] = "strict"
    require_token: bool = False
    trusted_proxies: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _unready_is_part_of_drain(self) -> Self:
        if self.unready_seconds >= self.drain_seconds:
            raise ValueError("unready_seconds is the first part of drain_seconds and must be shorter")
        return self


class StoreSettings(_Section):
    """The store, and what a 202 promises of it."""

    url: str = "redis://127.0.0.1:6379/0"
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,32}$")] = "gw"
    durability: Literal["memory", "fsync", "replicated"] = "fsync"
    replicas: Count = 1
    max_queued: Count = 1_000_000
    max_queued_bytes: Count = 4_000_000_000
    retention_seconds: Seconds = 604_800
    alias_retention_seconds: Seconds = 2_592_000

    @field_validator("url")
    @classmethod
    def _scheme_is_served(cls, url: str) -> str:
        parse_store_url(url)
        return url


class AuthSettings(_Section):
    """Who may call."""

    mode: tuple[Literal["none", "keys", "jwt", "sigv4"], ...] = ("none",)
    secrets_file: Path | None = None

    @field_validator("mode")
    @classmethod
    def _mode_is_built(cls, mode: tuple[str, ...]) -> tuple[str, ...]:
        if mode != ("none",):
            raise ValueError('only ["none"] is built yet; put the gateway behind something that authenticates')
        return mode


class ForwardSettings(_Section):
    """How Batch is called, and when a submission is given up."""

    call_timeout_seconds: Seconds = 20
    lease_seconds: Seconds = 60
    max_attempts: Count = 10
    attempt_window_seconds: Seconds = 600
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 16
    max_shares_per_queue: Count = 500

    @model_validator(mode="after")
    def _lease_outlives_calls(self) -> Self:
        if self.lease_seconds < 2 * self.call_timeout_seconds:
            raise ValueError("lease_seconds must be at least twice call_timeout_seconds")
        return self


class UpstreamSettings(_Section):
    """One AWS account and Region."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "main"
    region: Annotated[str, AfterValidator(_like(r"[a-z]{2}(-[a-z]+)+-[0-9]+", "must be a Region such as us-east-1"))]
    account: Annotated[str, AfterValidator(_like(r"[0-9]{12}", 'must be twelve digits in quotes: "123456789012"'))]
    rate: Annotated[float, Field(ge=1e-3, le=10_000)] = 5.0
    burst: Annotated[int, Field(ge=1, le=1000)] = 1
    describe_rate: Annotated[float, Field(ge=1e-3, le=10_000)] = 30.0
    queues: Annotated[tuple[str, ...], Field(min_length=1)] = ("*",)
    endpoint_url: str | None = None
    role_arn: Annotated[str, AfterValidator(_like(_ROLE_ARN, _ROLE_ARN_SENTENCE))] | None = None
    submission_tag: bool = True

    @model_validator(mode="after")
    def _role_is_of_the_account(self) -> Self:
        if self.role_arn is not None and self.role_arn.split(":")[4] != self.account:
            raise ValueError("role_arn is of another account than this upstream: its jobs would go there")
        return self


class ShareSettings(_Section):
    """Limits of one share, or with the share `*` of each share of the queue that has no section."""

    queue: str
    share: str
    rate: Annotated[float, Field(ge=0, le=1e6), AfterValidator(_none_or_one_in_1000_seconds)] = 0.0
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    weight: Annotated[float, Field(ge=1e-3, le=1e3)] = 1.0
    max_queued: Annotated[int, Field(ge=0)] = 10_000
    over_limit: Literal["reject", "delay"] = "reject"


class Settings(_Section):
    """All settings, as DESIGN.md section 10 names them."""

    http: HttpSettings = HttpSettings()
    store: StoreSettings = StoreSettings()
    auth: AuthSettings = AuthSettings()
    forward: ForwardSettings = ForwardSettings()
    upstream: tuple[UpstreamSettings, ...] = ()
    share: tuple[ShareSettings, ...] = ()

    @field_validator("share")
    @classmethod
    def _one_section_a_share(cls, shares: tuple[ShareSettings, ...]) -> tuple[ShareSettings, ...]:
        names = [f"{one.queue}/{one.share}" for one in shares]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"more than one section for {', '.join(twice)}")
        return shares

    @field_validator("upstream")
    @classmethod
    def _told_apart(cls, upstreams: tuple[UpstreamSettings, ...], _: ValidationInfo) -> tuple[UpstreamSettings, ...]:
        if not upstreams:
            raise ValueError(
                "at least one [[upstream]] with region and account is needed: say --config or GATEWAY_CONFIG, "
                "or try `gateway dev`, which needs none"
            )
        tags = [upstream_tag(one.account, one.region) for one in upstreams]
        if len(set(tags)) != len(tags):
            raise ValueError("two upstreams have the same account and Region, or hash alike: merge them")
        names = [one.name for one in upstreams]
        if len(set(names)) != len(names):
            raise ValueError("two upstreams have the same name")
        return upstreams


# Named by the design and without effect yet.
NOT_BUILT = ("http.trusted_proxies", "auth.secrets_file")


def without_effect(settings: Settings) -> list[str]:
    """What is set and changes nothing, in sentences: no error, yet somebody may count on it."""
    notes = []
    for name in NOT_BUILT:
        section, key = name.split(".")
        here = getattr(settings, section)
        if getattr(here, key) != type(here).model_fields[key].default:
            notes.append(f"{name} has no effect yet")
    if settings.store.replicas != 1 and settings.store.durability != "replicated":
        notes.append(f"store.replicas has no effect: store.durability is {settings.store.durability}")
    for number, share in enumerate(settings.share):
        if not any(fnmatchcase(share.queue, glob) for one in settings.upstream for glob in one.queues):
            notes.append(
                f"share.{number} has no effect: no upstream has the queue {share.queue} (sections take no globs)"
            )
    return notes


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises SettingsError with every problem; a path of None means that there is no file."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError([f"{path}: cannot be read: {error.strerror}"]) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError([f"{path}: is not TOML: {error}"]) from error
    origins = _overlay(values, environment, problems)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False, include_input=False):
            steps = [str(step) for step in one["loc"]]
            origin = _origin(steps, origins, path, unknown=one["type"] == "extra_forbidden")
            problems.append(f"{origin}: {_sentence(one['type'], one['msg'], steps)}")
        raise SettingsError(problems) from error
    if problems:
        raise SettingsError(problems)
    return settings


def _origin(steps: list[str], origins: Mapping[str, str], path: Path | None, *, unknown: bool) -> str:
    """Where a value came from: a variable, and the place inside what it set; or the file, and the place in it."""
    for length in range(len(steps), 0, -1):
        variable = origins.get(".".join(steps[:length]))
        if variable:
            return ": ".join([variable, *([".".join(steps[length:])] if steps[length:] else [])])
    place = ".".join(steps)
    within = [variable for setting, variable in origins.items() if setting.startswith(f"{place}.")]
    if unknown and within:
        return within[0]
    return f"{path}: {place}" if path else place


def _overlay(values: dict[str, Any], environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Lay GATEWAY_<SECTION>__<KEY> over the file's values; answers which variable set which place.

    `GATEWAY_UPSTREAM__RATE` speaks of the first upstream, `GATEWAY_UPSTREAM__1__RATE` of the second; a whole list can
    be given as TOML or JSON.
    """
    origins = {}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(PREFIX) or variable in NOT_SETTINGS or _is_service_link(variable, text):
            continue
        steps = variable.removeprefix(PREFIX).lower().split("__")
        if steps[0] in ("upstream", "share") and len(steps) > 1 and not steps[1].isdigit():
            steps.insert(1, "0")
        try:
            _put(values, steps, _value(text))
        except (TypeError, ValueError, AttributeError, IndexError, KeyError):
            problems.append(f"{variable}: names no setting")
            continue
        origins[".".join(steps)] = variable
    return origins


def _is_service_link(variable: str, text: str) -> bool:
    name = variable.removeprefix(PREFIX)
    if "__" in name:
        return False
    return bool(_SERVICE_LINK.fullmatch(name) or _SERVICE_URL.fullmatch(f"{name}={text}"))


def _put(values: Any, steps: list[str], value: Any) -> None:
    *path, last = steps
    for step, following in zip(path, steps[1:], strict=True):
        empty: Any = [] if following.isdigit() else {}
        if isinstance(values, list):
            position = int(step)
            if position == len(values):
                values.append(empty)
            values = values[position]
        else:
            values = values.setdefault(step, empty)
    values[int(last) if isinstance(values, list) else last] = value


def _value(text: str) -> Any:
    """Numbers, booleans, lists and tables as TOML or JSON writes them; anything else is the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    if text.lstrip().startswith(("[", "{")):
        with suppress(ValueError):
            return json.loads(text)
    return text


def _sentence(kind: str, message: str, steps: list[str]) -> str:
    if kind == "extra_forbidden":
        near = get_close_matches(steps[-1], _known_names(steps), n=1)
        return f"is no setting; did you mean {near[0]}?" if near else "is no setting"
    if kind == "missing":
        return "is required"
    if kind == "tuple_type" and steps in (["upstream"], ["share"]):
        return f"is a list: write [[{steps[0]}]]"
    return message.removeprefix("Value error, ").replace("Input should", "should")


def _known_names(steps: list[str]) -> list[str]:
    """The names that are settings where an unknown one stands."""
    section: Any = Settings
    for step in steps[:-1]:
        if not step.isdigit():
            kind = section.model_fields[step].annotation
            section = get_args(kind)[0] if get_args(kind) else kind
    return list(section.model_fields)
