"""What the document lets in and what the code lets in are the same, as far as JSON Schema can say."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from gateway.api.batch_face import JobId, Termination, Update
from gateway.api.codec import Decoder, parse_json
from gateway.api.shares import ShareChange
from gateway.api.upstreams import UpstreamChange
from gateway.core.errors import InvalidSubmissionError
from gateway.core.upstream import Routes
from tests.contract.document import contract
from tests.contract.in_process import UPSTREAM
from tests.examples import submission, training_job

SUBMIT = contract().validator(contract().schemas["SubmitServiceJob"])
SUBMIT_AS_TO_BATCH = contract().validator(
    contract().document["paths"]["/v1/submitservicejob"]["post"]["requestBody"]["content"]["application/json"]["schema"]
)
# Batch's operations on one job, each with its schema in the document.
OF_A_JOB = {
    kind: contract().validator(contract().schemas[name])
    for kind, name in (
        (JobId, "JobReference"),
        (Termination, "TerminateServiceJobRequest"),
        (Update, "UpdateServiceJobRequest"),
    )
}
SHARE_CHANGE = contract().validator(contract().schemas["ShareChange"])
UPSTREAM_CHANGE = contract().validator(contract().schemas["UpstreamChange"])
DECODER = Decoder(
    queue_name=lambda queue: Routes([UPSTREAM]).resolve(queue)[1], payload_check=lambda _: ((), ()), policy="strict"
)
# The document names the usual characters without a shape; Unicode has more, and more with each version.
UNSAID = {"Cn", "Co", "Cf", "Cc", "Cs", "Zs"}

texts = st.text(
    st.characters(codec="utf-8").filter(lambda one: one == " " or unicodedata.category(one) not in UNSAID), max_size=20
)
long_texts = st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513]).map("x".__mul__)
odd_texts = st.sampled_from(
    ["a\n", "a b", "\x7f", "a\x00", "é", "-", "_", "aws:x", "AwS:x", "aws", "retry", "Exit", "RETRY "]
)
numbers = st.one_of(
    st.integers(-2, 12),
    st.sampled_from([9999, 10000, 10**6, 10**6 + 1, 2**31 - 1, 2**31, 10**8, 10**8 + 1, 10**30]),
    st.sampled_from([0.0, -0.0, 1.0, 5.0, 5.5, 0.001, 0.0009, 1000.0, 1000.5, 9999.0, 1e30]),
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.just({}),
    st.just([]),
    st.just([{}]),
    numbers,
    texts,
    long_texts,
    odd_texts,
    st.just({"a": 1}),
)
evaluate = st.fixed_dictionaries({}, optional={"action": odd, "onStatusReason": odd, "more": odd})
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "jobName": odd,
    "jobQueue": st.one_of(
        odd,
        st.sampled_from(
            [
                "training",
                "-training",
                "arn:aws:batch:us-east-1:123456789012:job-queue/training",
                "arn:aws:batch:eu-west-1:123456789012:job-queue/training",
                "arn:aws:batch:us-east-1:123456789012:job-queue/",
                "arn:aws:batch:us-east-1:123456789012:job-definition/training",
            ]
        ),
    ),
    "serviceJobType": st.one_of(odd, st.just("SAGEMAKER_TRAINING")),
    "serviceRequestPayload": st.one_of(
        odd, st.sampled_from(['{"a": 1}', " {} ", "{", "[]", "null", "{x}", '{"a": NaN}'])
    ),
    "shareIdentifier": odd,
    "quotaShareName": odd,
    "schedulingPriority": odd,
    "retryStrategy": st.one_of(
        odd,
        st.fixed_dictionaries(
            {},
            optional={"attempts": odd, "evaluateOnExit": st.one_of(odd, st.lists(evaluate, max_size=6)), "more": odd},
        ),
    ),
    "preemptionConfiguration": st.one_of(
        odd, st.fixed_dictionaries({}, optional={"preemptionRetriesBeforeTermination": odd, "more": odd})
    ),
    "timeoutConfig": st.one_of(odd, st.fixed_dictionaries({}, optional={"attemptDurationSeconds": odd, "more": odd})),
    "tags": st.one_of(
        odd,
        st.dictionaries(st.one_of(texts, long_texts, odd_texts), st.one_of(texts, long_texts, odd), max_size=3),
        st.sampled_from([49, 50, 51]).map(lambda most: {str(number): "" for number in range(most)}),
    ),
    "clientToken": odd,
    "more": odd,
}
share_changes = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("rate", "burst", "weight", "maxQueued", "paused", "more"), odd),
        "overLimit": st.one_of(odd, st.sampled_from(["reject", "delay", "Delay"])),
    },
)
of_a_job = st.fixed_dictionaries(
    {},
    optional={
        "jobId": st.one_of(odd, st.sampled_from([0, 1, 2048, 2049]).map("x".__mul__)),
        "reason": st.one_of(odd, st.sampled_from([0, 1, 2048, 2049]).map("x".__mul__)),
        "schedulingPriority": odd,
        "more": odd,
    },
)
upstream_changes = st.fixed_dictionaries({}, optional=dict.fromkeys(("accepting", "forwarding", "rate", "more"), odd))


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A valid body with a few members changed: most of what goes wrong in one place would hide the others."""
    body = submission()
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True)):
        if draw(st.integers(0, 9)):
            body[name] = draw(VALUES[name])
        else:
            body.pop(name, None)
    return body


def said_beyond_json_schema(pointer: str, body: dict[str, Any]) -> bool:
    """Whose account an ARN is of, and what a string holds."""
    return (pointer == "/jobQueue" and str(body.get("jobQueue")).startswith("arn:")) or (
        pointer == "/serviceRequestPayload" and isinstance(body.get("serviceRequestPayload"), str)
    )


def pointers_of_what_the_code_finds(body: dict[str, Any], **how: bool) -> list[str]:
    try:
        DECODER.request(parse_json(json.dumps(body).encode(), "application/json"), **how)
    except InvalidSubmissionError as error:
        return [one.pointer for one in error.findings]
    return []


@settings(max_examples=1500, deadline=None)
@given(body=bodies())
@example(body=submission())
@example(body=submission(tags={f"t{number}": "v" for number in range(50)}))
def test_a_submission_is_let_in_by_both_or_by_neither(body: dict[str, Any]) -> None:
    documented = SUBMIT.is_valid(body)
    wrong = pointers_of_what_the_code_finds(body)
    if wrong and documented:
        assert all(said_beyond_json_schema(pointer, body) for pointer in wrong)
    else:
        assert documented == (not wrong), wrong


@settings(max_examples=500, deadline=None)
@given(body=bodies(), as_text=st.integers(0, 3))
@example(body=submission(), as_text=0)
@example(body=submission(), as_text=1)
def test_a_submission_as_to_batch_is_let_in_by_both_or_by_neither(body: dict[str, Any], as_text: int) -> None:
    if as_text and body.get("serviceRequestPayload") == training_job():
        body = {**body, "serviceRequestPayload": json.dumps(training_job())}
    documented = SUBMIT_AS_TO_BATCH.is_valid(body)
    wrong = pointers_of_what_the_code_finds(body, text_payload=True)
    if wrong and documented:
        assert all(said_beyond_json_schema(pointer, body) for pointer in wrong)
    else:
        assert documented == (not wrong), wrong


@settings(max_examples=500, deadline=None)
@given(body=of_a_job)
@example(body={"jobId": "j"})
@example(body={"jobId": "j", "reason": ""})
@example(body={"jobId": "j", "schedulingPriority": 620.0})
def test_what_names_a_job_is_let_in_by_both_or_by_neither(body: dict[str, Any]) -> None:
    for kind, documented in OF_A_JOB.items():
        assert documented.is_valid(body) == lets_in(kind, body)


@settings(max_examples=500, deadline=None)
@given(body=share_changes)
@example(body={"rate": 5e-324})
def test_a_change_of_a_share_is_let_in_by_both_or_by_neither(body: dict[str, Any]) -> None:
    assert SHARE_CHANGE.is_valid(body) == lets_in(ShareChange, body)


@settings(max_examples=500, deadline=None)
@given(body=upstream_changes)
@example(body={"rate": 5e-324})
def test_a_change_of_an_upstream_is_let_in_by_both_or_by_neither(body: dict[str, Any]) -> None:
    assert UPSTREAM_CHANGE.is_valid(body) == lets_in(UpstreamChange, body)


def lets_in(model: type[BaseModel], body: dict[str, Any]) -> bool:
    try:
        model.model_validate(parse_json(json.dumps(body).encode(), "application/json"))
    except ValidationError:
        return False
    return True


def test_the_schema_has_exactly_the_members_of_the_model() -> None:
    from gateway.api.codec import SubmitServiceJob

    members = {field.alias for field in SubmitServiceJob.model_fields.values()}
    assert set(contract().schemas["SubmitServiceJob"]["properties"]) == members
    assert set(contract().schemas["SubmitServiceJob"]["required"]) == {
        field.alias for field in SubmitServiceJob.model_fields.values() if field.is_required()
    }
