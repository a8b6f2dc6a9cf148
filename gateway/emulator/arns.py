"""Amazon Resource Names of one account and Region: `arn:aws:batch:<region>:<account>:<type>/<name>`."""

from dataclasses import dataclass

from gateway.emulator.errors import BatchError


@dataclass(frozen=True, slots=True, kw_only=True)
class Arns:
    """Writes and reads the ARNs of one account and Region."""

    region: str
    account: str

    def job(self, job_id: str) -> str:
        return f"{self._prefix}service-job/{job_id}"

    def queue(self, name: str) -> str:
        return f"{self._prefix}job-queue/{name}"

    def policy(self, name: str) -> str:
        return f"{self._prefix}scheduling-policy/{name}"

    def quota_share(self, queue: str, name: str) -> str:
        """The form is not documented: callers must take it as it comes, from CreateQuotaShare or ListQuotaShares."""
        return f"{self._prefix}job-queue/{queue}/quota-share/{name}"

    def training_job(self, name: str) -> str:
        return f"arn:aws:sagemaker:{self.region}:{self.account}:training-job/{name}"

    def job_id(self, id_or_arn: str) -> str:
        """The id in what a caller gave as jobId. Raises BatchError for the ARN of anything else."""
        return self._name(id_or_arn, "service-job", member="jobId")

    def queue_name(self, name_or_arn: str) -> str:
        """The name in what a caller gave as jobQueue. Raises BatchError for the ARN of anything else."""
        return self._name(name_or_arn, "job-queue", member="jobQueue")

    @property
    def _prefix(self) -> str:
        return f"arn:aws:batch:{self.region}:{self.account}:"

    def _name(self, name_or_arn: str, kind: str, *, member: str) -> str:
        if not name_or_arn.startswith("arn:"):
            return name_or_arn
        prefix = f"{self._prefix}{kind}/"
        name = name_or_arn.removeprefix(prefix)
        if name == name_or_arn or not name or "/" in name:
            message = f"{member}: {name_or_arn} is no {kind} of account {self.account} in {self.region}"
            raise BatchError(message)
        return name
