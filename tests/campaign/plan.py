"""What a campaign will do, drawn from its seed: the schedule of what goes wrong, the shares, the settings."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.campaign.stores import STORE_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

GATEWAYS = 3
CALL_SECONDS = 1.0
LEASE_SECONDS = 3.0
DRAIN_SECONDS = 5.0
# A gateway is stopped for longer than a lease, so that others take what it held; then it goes on as if nothing was.
LONGEST_STOP_SECONDS = LEASE_SECONDS + 2.0
# Later than all looks for it in a hurry: some jobs are not found in time, and a person would have to look.
LATEST_LISTING_SECONDS = 15.0
QUEUE = "training"

GATEWAY_KINDS = ("kill_gateway", "term_gateway", "stop_gateway")
BATCH_KINDS = (
    "lost_answer",
    "lost_answer_hang",
    "late_500",
    "error_200_garbage",
    "drop",
    "error_500",
    "slow",
    "throttle",
    "throttle_bare",
    "client_error",
    "credentials",
    "late_listing",
    "errands_fail",
    "down",
    "refuse",
)
"""The emulator's kinds, and `errands_fail`: 500s for looks and terminations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRules:
    """A share's name, and its limits as the settings have them; a rate of 0 is none."""

    name: str
    rate: float = 0.0
    burst: int = 0
    over_limit: str = "reject"

    @property
    def full_name(self) -> str:
        return f"{QUEUE}/{self.name}"


SHARES = (
    ShareRules(name="free"),
    ShareRules(name="other"),
    ShareRules(name="limited", rate=6.0, burst=4),
    ShareRules(name="delayed", rate=4.0, burst=3, over_limit="delay"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that goes wrong `after` so many seconds: for how long, how often, with what chance a call."""

    after: float
    kind: str
    gateway: int
    seconds: float
    times: int
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`tps` is what Batch takes and the gateways' rate, in calls a second; `arrivals` what callers send a second."""

    seed: int
    seconds: float
    store: str
    repeats: str
    kinds: tuple[str, ...]
    troubles: tuple[Trouble, ...]
    tps: float = 60.0
    arrivals: float = 50.0
    callers: int = 32

    def chance(self, *who: object) -> random.Random:
        """Chance of its own for each who asks, so that one more draw here changes nothing there."""
        return random.Random("/".join(map(str, (self.seed, *who))))

    def settings(self, *, store: str, endpoint: str) -> str:
        """The gateways' TOML file."""
        shares = "".join(
            f'[[share]]\nqueue = "{QUEUE}"\nshare = "{one.name}"\nrate = {one.rate}\nburst = {one.burst}\n'
            f'over_limit = "{one.over_limit}"\n'
            for one in SHARES
            if one.rate
        )
        return f"""
[http]
unready_seconds = 0
drain_seconds = {DRAIN_SECONDS}
[store]
{store}
prefix = "gw"
[forward]
call_timeout_seconds = {CALL_SECONDS}
lease_seconds = {LEASE_SECONDS}
[[upstream]]
name = "main"
region = "us-east-1"
account = "123456789012"
endpoint_url = "{endpoint}"
rate = {self.tps}
{shares}"""

    def facts(self) -> dict[str, Any]:
        """What the checker has to know of it."""
        return {
            "seed": self.seed,
            "store": self.store,
            "repeats": self.repeats,
            "lease_seconds": LEASE_SECONDS,
            "longest_stop_seconds": LONGEST_STOP_SECONDS,
            "shares": {
                one.full_name: {"rate": one.rate, "burst": one.burst, "over_limit": one.over_limit} for one in SHARES
            },
        }


def kinds_of(store: str) -> tuple[str, ...]:
    """All that can go wrong on this store."""
    return (*GATEWAY_KINDS, *STORE_KINDS[store], *BATCH_KINDS)


def draw(
    *,
    seed: int,
    seconds: float,
    kinds: Sequence[str],
    store: str = "standalone",
    repeats: str | None = None,
    every: float = 1.5,
) -> Plan:
    """A plan in which something goes wrong about each `every` seconds, every kind as often as any other.

    What Batch does with a repeated token is drawn too, unless it is given. Where it has forgotten the token, a job that
    is not listed in time either leaves no trace, and nobody could help making another: late listing is left out then.
    """
    chance = random.Random(seed)
    repeats = repeats or chance.choice(("reject", "replay"))
    if repeats == "forgotten":
        kinds = [kind for kind in kinds if kind != "late_listing"]
    troubles: list[Trouble] = []
    at = every
    while at < seconds and kinds:
        for kind in chance.sample(list(kinds), len(kinds)):
            if at >= seconds:
                break
            troubles.append(
                Trouble(
                    after=at,
                    kind=kind,
                    gateway=chance.randrange(GATEWAYS),
                    seconds=_lasts(kind, chance),
                    times=chance.randint(1, 5),
                    probability=chance.uniform(0.2, 0.8),
                )
            )
            at += chance.uniform(0.4, 1.6) * every
    return Plan(seed=seed, seconds=seconds, store=store, repeats=repeats, kinds=tuple(kinds), troubles=tuple(troubles))


def _lasts(kind: str, chance: random.Random) -> float:
    """How long it lasts, in seconds; of calls that are only slow, how long each takes."""
    if kind == "stop_gateway":
        return chance.uniform(LEASE_SECONDS + 0.2, LONGEST_STOP_SECONDS)
    if kind == "late_listing":
        return chance.uniform(0.5, LATEST_LISTING_SECONDS)
    if kind == "slow":
        return chance.uniform(0.1, CALL_SECONDS * 1.1)
    return chance.uniform(0.1, 3.0)
