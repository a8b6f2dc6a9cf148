"""All keys of one upstream, under one hash tag: in a cluster they share a slot, so that one script may use them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.core.share import Share

# Lists of submissions by when they were accepted, by the first word of their keys: the set that names them all.
LISTS = {"index": "namespaces", "ended": "endings"}


def noted_upstreams(prefix: str) -> str:
    """Hash: `name account region` of every upstream that the store was ever used for, by tag. In no upstream's slot."""
    return f"{prefix}:upstreams"


@dataclass(frozen=True, slots=True)
class Keys:
    """`prefix` is the settings' `store.prefix`, `tag` the upstream's 16 bits, which begin every submissionId of it."""

    prefix: str
    tag: str

    @property
    def root(self) -> str:
        return f"{self.prefix}:{{{self.tag}}}:"

    @property
    def upstream(self) -> str:
        """Hash: counters, virtual time, pace."""
        return self.root + "upstream"

    @property
    def active(self) -> str:
        """Zset of shares with something ready and no pause, by start tag."""
        return self.root + "active"

    @property
    def backlog(self) -> str:
        """Zset of shares by how many submissions they have queued, wherever these stand."""
        return self.root + "backlog"

    @property
    def marked(self) -> str:
        """Set of shares that are paused or that operators have set something for."""
        return self.root + "marked"

    @property
    def queues(self) -> str:
        """Hash of queues: how many of their shares have a backlog."""
        return self.root + "queues"

    @property
    def delayed(self) -> str:
        """Zset of submissions, by when they are due, in ms."""
        return self.root + "delayed"

    @property
    def leased(self) -> str:
        """Zset of submissions, by when the lease ends, in ms."""
        return self.root + "leased"

    @property
    def errands(self) -> str:
        """Zset of submissions that Batch is to be asked something for beside submitting, by when that is due, in ms."""
        return self.root + "errands"

    @property
    def deadlines(self) -> str:
        """Zset of queued submissions with a deadline, by deadline, in ms."""
        return self.root + "deadlines"

    @property
    def namespaces(self) -> str:
        """Set of namespaces that have an index."""
        return self.root + "namespaces"

    @property
    def endings(self) -> str:
        """Set of queues of which something ended without a job."""
        return self.root + "endings"

    @property
    def denied(self) -> str:
        """Hash of (queue, role) digests that IAM denies: when they are tried again, in ms."""
        return self.root + "denied"

    @property
    def touched(self) -> str:
        """String, empty: written where a wait for the disk or for replicas needs a write to wait for."""
        return self.root + "touched"

    @property
    def auditor(self) -> str:
        """String that expires: there while a process has the turn to audit."""
        return self.root + "auditor"

    @property
    def audit(self) -> str:
        """Hash: how far the audit's round is."""
        return self.root + "audit"

    @property
    def wake(self) -> str:
        """Channel: something is ready where nothing was."""
        return self.root + "wake"

    @property
    def ends(self) -> str:
        """Channel: ids of submissions that left `queued`."""
        return self.root + "ends"

    def record(self, submission_id: str) -> str:
        """String: the submission."""
        return f"{self.root}sub:{submission_id}"

    def index(self, namespace: str) -> str:
        """Zset of the namespace's submissions, by when they were accepted, in ms."""
        return f"{self.root}index:{namespace}"

    def ended(self, queue: str) -> str:
        """Zset of the queue's submissions that ended without a job of Batch's, by when they were accepted, in ms."""
        return f"{self.root}ended:{queue}"

    def share(self, share: Share) -> str:
        """Hash: the share's tags, rate and overrides."""
        return f"{self.root}share:{share}"

    def ready(self, share: Share) -> str:
        """Zset of the share's ready submissions, by place."""
        return f"{self.root}ready:{share}"

    def waiting(self, share: Share) -> str:
        """Zset of the share's queued submissions, wherever they stand, by when they were accepted, in ms."""
        return f"{self.root}waiting:{share}"

    def held(self, share: Share) -> str:
        """Zset of the share's submissions that wait for its rate, by when they are due, in ms."""
        return f"{self.root}held:{share}"

    def alias(self, submission_id: str) -> str:
        """String: Batch's job id of a submission, also after its record has expired."""
        return f"{self.root}alias:{submission_id}"

    def job(self, job_id: str) -> str:
        """String: the submissionId of a job of Batch's."""
        return f"{self.root}job:{job_id}"
