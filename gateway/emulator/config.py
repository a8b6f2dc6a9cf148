"""What an emulator is made with. Everything has a default that behaves as AWS Batch is known to."""

from dataclasses import dataclass
from typing import Literal

Policy = Literal["any", "none", "fairshare", "quota"]
"""What a queue asks of a submission's share: `fairshare` a shareIdentifier, `quota` a quotaShareName, `none` neither;
`any` takes whatever comes, for queues that nobody has described."""

State = Literal["ENABLED", "DISABLED"]
Limiter = Literal["bucket", "window"]
Repeats = Literal["reject", "replay", "forgotten"]

DEFAULT_REGION = "us-east-1"
DEFAULT_ACCOUNT = "123456789012"
SUBMIT_TPS = 5.0  # Batch's fixed quota on SubmitServiceJob, a second per account and Region
READ_TPS = 50.0  # what AWS's support pages say of all other Batch calls together
JOB_SECONDS = 10.0
TOKEN_TTL_SECONDS = 86_400.0  # how long Batch remembers a clientToken is not documented: a day outlives any retry
LEDGER_SIZE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaShareConfig:
    """A quota share of a queue; a `DISABLED` one takes no jobs."""

    name: str
    state: State = "ENABLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """A job queue that is there from the start. `quota_shares` are for the policy `quota` only."""

    name: str
    policy: Policy = "none"
    quota_shares: tuple[QuotaShareConfig, ...] = ()
    state: State = "ENABLED"
    job_queue_type: str = "SAGEMAKER_TRAINING"

    def __post_init__(self) -> None:
        if self.quota_shares and self.policy != "quota":
            message = f"the queue {self.name} has quota shares, so its policy must be quota, not {self.policy}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorConfig:
    """All that can be chosen about an emulator.

    - `auto_queues`: a queue name that nobody has made is made on first use, with the policy `any`.
    - `submit_tps`: SubmitServiceJob calls a second; `read_tps`: all other calls together; 0 is without limit.
    - `limiter`: `bucket` refills `submit_tps` a second into `bucket_size` (default: one second's worth), full at the
      start; `window` lets at most `submit_tps` calls through in any one second.
    - `repeats`: what a clientToken that is known gets: `reject` a 400 that does not tell the job, `replay` the first
      answer again, `forgotten` another job. After `token_ttl_seconds` a token is unknown again.
    - `job_seconds`: from submission to `SUCCEEDED`.
    - `seed`: makes faults with a probability and jitter the same on every run.
    - `ledger_size`: how many of the newest calls the ledger keeps.
    """

    region: str = DEFAULT_REGION
    account: str = DEFAULT_ACCOUNT
    queues: tuple[QueueConfig, ...] = ()
    auto_queues: bool = True
    submit_tps: float = SUBMIT_TPS
    read_tps: float = READ_TPS
    limiter: Limiter = "bucket"
    bucket_size: float | None = None
    repeats: Repeats = "reject"
    token_ttl_seconds: float = TOKEN_TTL_SECONDS
    job_seconds: float = JOB_SECONDS
    seed: int | None = None
    ledger_size: int = LEDGER_SIZE

    def __post_init__(self) -> None:
        names = [queue.name for queue in self.queues]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            message = f"a queue is given twice: {', '.join(twice)}"
            raise ValueError(message)
