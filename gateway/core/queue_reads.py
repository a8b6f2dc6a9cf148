"""What Batch alone knows of queues, policies and quota shares: asked of the upstream that has them, and passed on."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.core.errors import MalformedError
from gateway.core.reads import Aged, upstream_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.core.caller import Caller
    from gateway.core.lookup import Lookup
    from gateway.core.reads import Reads
    from gateway.core.upstream import Routes, Upstream

# Of several upstreams a list is walked one after another: their number stands before Batch's own token.
_TOKEN = re.compile(r"(?P<number>[0-9]{1,4})\.(?P<token>.*)", re.DOTALL)


class QueueReads:
    """Parameters and answers are those of Batch's operations; readers are by the upstream's tag.

    All raise MalformedError for a queue or an ARN of no upstream, and what keeps Batch from answering.
    """

    def __init__(self, *, routes: Routes, lookup: Lookup, reads: Mapping[str, Reads]) -> None:
        self._routes = routes
        self._lookup = lookup
        self._reads = reads

    async def describe_job_queues(self, params: Mapping[str, Any]) -> Aged:
        """Named ones by the upstreams that have them; without names all, one upstream after another."""
        names = params.get("jobQueues")
        if names:
            parts: dict[str, list[str]] = {}
            for name in _texts(names, "jobQueues"):
                with suppress(MalformedError):  # as Batch does, those that are nowhere are left out
                    parts.setdefault(self._of_queue(name).tag, []).append(name)
            return await self._together("DescribeJobQueues", "jobQueues", params, parts)
        upstreams = list(self._routes)
        if len(upstreams) == 1:
            return await self._ask(upstreams[0].tag, "DescribeJobQueues", params)
        return await self._walk(upstreams, "DescribeJobQueues", params)

    async def describe_scheduling_policies(self, params: Mapping[str, Any]) -> Aged:
        parts: dict[str, list[str]] = {}
        for arn in _texts(params.get("arns"), "arns"):
            with suppress(MalformedError):
                parts.setdefault(self._of_arn(arn, "arns").tag, []).append(arn)
        return await self._together("DescribeSchedulingPolicies", "schedulingPolicies", params, parts, asked="arns")

    async def list_quota_shares(self, params: Mapping[str, Any]) -> Aged:
        return await self._ask(self._of_queue(params.get("jobQueue")).tag, "ListQuotaShares", params)

    async def describe_quota_share(self, params: Mapping[str, Any]) -> Aged:
        upstream = self._of_arn(params.get("quotaShareArn"), "quotaShareArn")
        return await self._ask(upstream.tag, "DescribeQuotaShare", params)

    async def job_queue_snapshot(self, params: Mapping[str, Any], caller: Caller) -> Aged:
        """Who is no operator sees of the jobs at the front its own."""
        aged = await self._ask(self._of_queue(params.get("jobQueue")).tag, "GetJobQueueSnapshot", params)
        if caller.operator:
            return aged
        answer = dict(aged.answer)
        if front := answer.get("frontOfQueue"):
            answer["frontOfQueue"] = {**front, "jobs": await self._visible(front.get("jobs", ()), caller)}
        if front := answer.get("frontOfQuotaShares"):
            shares = {name: await self._visible(jobs, caller) for name, jobs in front.get("quotaShares", {}).items()}
            answer["frontOfQuotaShares"] = {**front, "quotaShares": {name: one for name, one in shares.items() if one}}
        return Aged(answer=answer, seconds=aged.seconds)

    async def _visible(self, jobs: Iterable[Mapping[str, Any]], caller: Caller) -> list[Mapping[str, Any]]:
        return [job for job in jobs if await self._lookup.owns(str(job.get("jobArn")), caller)]

    async def _ask(self, tag: str, operation: str, params: Mapping[str, Any]) -> Aged:
        with upstream_errors():
            return await self._reads[tag].aged(operation, params)

    async def _together(
        self, operation: str, member: str, params: Mapping[str, Any], parts: Mapping[str, list[str]], asked: str = ""
    ) -> Aged:
        """`parts` are the names that each upstream has."""
        if len(parts) == 1:
            ((tag, names),) = parts.items()
            return await self._ask(tag, operation, {**params, asked or member: names})
        found: list[Any] = []
        oldest = 0.0
        for tag, names in parts.items():
            aged = await self._ask(tag, operation, {**params, asked or member: names})
            found += aged.answer.get(member, [])
            oldest = max(oldest, aged.seconds)
        return Aged(answer={member: found}, seconds=oldest)

    async def _walk(self, upstreams: Sequence[Upstream], operation: str, params: Mapping[str, Any]) -> Aged:
        match = _TOKEN.fullmatch(str(params.get("nextToken") or "0."))
        if match is None or int(match["number"]) >= len(upstreams):
            raise MalformedError("nextToken: not a token of this service")
        number = int(match["number"])
        query = {name: value for name, value in params.items() if name != "nextToken"}
        aged = await self._ask(
            upstreams[number].tag, operation, {**query, "nextToken": match["token"]} if match["token"] else query
        )
        answer = {name: value for name, value in aged.answer.items() if name != "nextToken"}
        if aged.answer.get("nextToken"):
            answer["nextToken"] = f"{number}.{aged.answer['nextToken']}"
        elif number + 1 < len(upstreams):
            answer["nextToken"] = f"{number + 1}."
        return Aged(answer=answer, seconds=aged.seconds)

    def _of_queue(self, queue: object) -> Upstream:
        if not isinstance(queue, str):
            raise MalformedError("jobQueue: is required, and is a name or an ARN")
        try:
            return self._routes.resolve(queue)[0]
        except ValueError as error:
            raise MalformedError(f"jobQueue: {error}") from error

    def _of_arn(self, arn: object, member: str) -> Upstream:
        upstream = self._routes.of_arn(arn) if isinstance(arn, str) else None
        if upstream is not None:
            return upstream
        raise MalformedError(f"{member}: must be an ARN of an account and Region that this gateway forwards to")


def _texts(value: object, member: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise MalformedError(f"{member}: must be a list of texts")
