from __future__ import annotations

import copy
import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.batch.model_schema import compiled, full_match, reachable, request_rules
from gateway.batch.payload import LONGEST_LIST, MODEL_LEVELS, MOST_FINDINGS, ROOT, TrainingJobCheck
from gateway.core.errors import Finding, json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.ports import PayloadCheck

MODEL = Loader().load_service_model("sagemaker", "service-2")
SHAPES: dict[str, Any] = MODEL["shapes"]
REACHABLE = reachable(SHAPES, ROOT)
INPUT_SHAPE = ServiceModel(MODEL).operation_model("CreateTrainingJob").input_shape

PAYLOAD: dict[str, Any] = {
    "TrainingJobName": "train-resnet-0042",
    "AlgorithmSpecification": {
        "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/train:2.1",
        "TrainingInputMode": "File",
    },
    "RoleArn": "arn:aws:iam::123456789012:role/SageMakerTrainingRole",
    "HyperParameters": {"epochs": "10", "lr": "0.001", "batch-size": "64"},
    "InputDataConfig": [
        {
            "ChannelName": "train",
            "DataSource": {
                "S3DataSource": {
                    "S3DataType": "S3Prefix",
                    "S3Uri": "s3://bucket/data/train/",
                    "S3DataDistributionType": "FullyReplicated",
                }
            },
        }
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out/"},
    "ResourceConfig": {"InstanceType": "ml.g5.2xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100},
    "StoppingCondition": {"MaxRuntimeInSeconds": 86400},
    "Environment": {"STAGE": "prod"},
    "Tags": [{"Key": "team", "Value": "vision"}],
}

# For each pattern of the model, by one shape that has it: a text it takes and one it refuses.
SAMPLES: dict[str, tuple[str, str | None]] = {
    "TrainingJobName": ("a--b", "a_b"),
    "AlgorithmImage": ("any text, or none", "two\nlines"),
    "ArnOrName": ("arn:aws:sagemaker:eu-west-1:123456789012:algorithm/mine", "mine-"),
    "MetricName": ("loss", ""),
    "TrainingRepositoryCredentialsProviderArn": ("arn:aws-cn:lambda:eu-west-1:123456789012:function:f", "arn:é:lambda"),
    "RoleArn": ("arn:aws:iam::123456789012:role/service-role/X@y", "arn:aws:iam::12345678901:role/X"),
    "ChannelName": ("train.2_x-y", "train/x"),
    "S3Uri": ("s3://bucket/key with space", "bucket/key"),
    "FileSystemId": ("fs-0123456789abcdef0", "fs-0123"),
    "HubDataSetArn": (
        "arn:aws:sagemaker:eu-west-1:aws:hub-content/hub/DataSet/name/1.0.0",
        "arn:aws:sagemaker:eu-west-1:aws:hub-content/hub/Model/name",
    ),
    "KmsKeyId": ("alias/key_1", "a key"),
    "TrainingPlanArn": ("arn:aws:sagemaker:eu-west-1:123456789012:training-plan/x", "training-plan/x"),
    "SecurityGroupId": ("sg-0a1b", "sg_0a1b"),
    "TagKey": ("Kosten stelle/größe@1", "a!b"),
    "ExperimentEntityName": ("an-experiment", "-x"),
    "TrainingEnvironmentKey": ("_PATH9", "9PATH"),
    "TrainingEnvironmentValue": ("line\nline\u2028\xa0😀", None),
    "ServerlessJobBaseModelArn": (
        "arn:aws:sagemaker:eu-west-1:123456789012:hub-content/hub/Model/name",
        "arn:aws:sagemaker:eu-west-1:12:hub-content/hub/Model/name",
    ),
    "SequenceLength": ("4K", "٤K"),
    "MlFlowResourceArn": ("arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/x", "mlflow-x/y"),
    "ModelPackageGroupArn": (
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/x",
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package-group/x y",
    ),
    "ModelPackageArn": (
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package/x/1",
        "arn:aws:sagemaker:eu-west-1:123456789012:model-package/",
    ),
}


@pytest.fixture(scope="module")
def check() -> TrainingJobCheck:
    return TrainingJobCheck()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The valid payload with one member set, by its dotted path."""
    payload = copy.deepcopy(PAYLOAD)
    *way, last = path.split(".")
    target = payload
    for name in way:
        target = target.setdefault(name, {})
    target[last] = value
    return payload


def details(findings: list[Finding]) -> dict[str, str]:
    return {finding.pointer: finding.detail for finding in findings}


def test_a_realistic_payload_has_no_findings(check: PayloadCheck) -> None:
    assert check(PAYLOAD) == ([], [])


def test_everything_that_is_wrong_is_told_at_once_in_order(check: PayloadCheck) -> None:
    payload = copy.deepcopy(PAYLOAD)
    del payload["OutputDataConfig"]["S3OutputPath"]
    del payload["RoleArn"]
    payload["TrainingJobName"] = "a_" * 32
    payload["Foo"] = 1
    payload["ResourceConfig"]["Instances"] = 3
    payload["HyperParameters"] = {"a/~b": 0.1, "x" * 257: "", "two\nlines": ""}
    payload["StoppingCondition"] = {"MaxRuntimeInSeconds": 0, "MaxWaitTimeInSeconds": 2**31}
    payload["VpcConfig"] = {"SecurityGroupIds": [], "Subnets": ["subnet-1"] * 17}
    payload["ExperimentConfig"] = None
    payload["EnableNetworkIsolation"] = "yes"
    payload["InputDataConfig"] = {}
    payload["Tags"][0]["Key"] = ""
    payload["RetryStrategy"] = {"MaximumRetryAttempts": 1.5}
    payload["Environment"] = []
    payload["AlgorithmSpecification"]["TrainingInputMode"] = 7
    errors, warnings = check(payload)
    name_pattern = SHAPES["TrainingJobName"]["pattern"]
    assert [(finding.pointer, finding.detail) for finding in errors] == [
        ("/AlgorithmSpecification/TrainingInputMode", "must be a string"),
        ("/EnableNetworkIsolation", "must be true or false"),
        ("/Environment", "must be an object"),
        ("/ExperimentConfig", "must not be null"),
        ("/Foo", "is not a member of CreateTrainingJobRequest"),
        ("/HyperParameters/a~1~0b", "must be a string"),
        ("/HyperParameters/two\nlines", "must have a name that matches the pattern .*"),
        ("/HyperParameters/" + "x" * 257, "must have a name of 0 to 256 characters"),
        ("/InputDataConfig", "must be a list"),
        ("/OutputDataConfig/S3OutputPath", "is required"),
        ("/ResourceConfig/Instances", "is not a member of ResourceConfig"),
        ("/RetryStrategy/MaximumRetryAttempts", "must be an integer"),
        ("/RoleArn", "is required"),
        ("/StoppingCondition/MaxRuntimeInSeconds", "must be at least 1"),
        ("/StoppingCondition/MaxWaitTimeInSeconds", "must be at most 2147483647"),
        ("/Tags/0/Key", "must be at least 1 character"),
        ("/TrainingJobName", "must be at most 63 characters"),
        ("/TrainingJobName", f"must match the pattern {name_pattern}"),
        ("/VpcConfig/SecurityGroupIds", "must have at least 1 item"),
        ("/VpcConfig/Subnets", "must have at most 16 items"),
    ]
    assert warnings == []


@pytest.mark.parametrize("payload", [None, [], "text", 1, [PAYLOAD]])
def test_a_payload_that_is_no_object_is_one_error(check: PayloadCheck, payload: object) -> None:
    assert check(payload) == ([Finding(pointer="", detail="must be a JSON object")], [])


def test_a_whole_number_written_with_a_fraction_is_an_integer(check: PayloadCheck) -> None:
    assert check(changed("ResourceConfig.InstanceCount", json.loads("620.0"))) == ([], [])


def test_true_is_no_integer(check: PayloadCheck) -> None:
    errors, _ = check(changed("ResourceConfig.InstanceCount", value=True))
    assert details(errors) == {"/ResourceConfig/InstanceCount": "must be an integer"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300, 10**400, -(10**400)])
def test_a_number_beyond_the_type_is_an_error(check: PayloadCheck, number: float) -> None:
    errors, _ = check(changed("ResourceConfig.InstanceCount", number))
    assert [finding.pointer for finding in errors] == ["/ResourceConfig/InstanceCount"]


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("ProfilerConfig.ProfilingIntervalInMilliseconds", -(2**63), 2**63 - 1),
        ("ResourceConfig.InstanceCount", 0, 2**31 - 1),
        ("ResourceConfig.KeepAlivePeriodInSeconds", 0, 21600),
    ],
)
def test_an_integer_keeps_to_the_models_range_or_its_types(check: PayloadCheck, path: str, low: int, high: int) -> None:
    assert check(changed(path, low)) == check(changed(path, high)) == ([], [])
    where = "/" + path.replace(".", "/")
    assert details(check(changed(path, low - 1))[0]) == {where: f"must be at least {low}"}
    assert details(check(changed(path, high + 1))[0]) == {where: f"must be at most {high}"}


def test_text_that_is_no_unicode_is_an_error(check: PayloadCheck) -> None:
    errors, _ = check(changed("HyperParameters", {"x": json.loads('"\\ud800"')}))
    assert details(errors) == {"": "must not hold half of a surrogate pair"}


def test_lengths_count_code_points(check: PayloadCheck) -> None:
    assert check(changed("HyperParameters.x", "😀" * 2500)) == ([], [])
    errors, _ = check(changed("HyperParameters.x", "😀" * 2501))
    assert details(errors) == {"/HyperParameters/x": "must be at most 2500 characters"}


def test_a_map_of_too_many_is_one_error_at_the_map(check: PayloadCheck) -> None:
    errors, _ = check(changed("Environment", {f"A{i}": "" for i in range(101)}))
    assert details(errors) == {"/Environment": "must have at most 100 members"}


def test_a_value_newer_than_the_model_is_a_warning(check: PayloadCheck) -> None:
    errors, warnings = check(changed("ResourceConfig.InstanceType", "ml.zz9.48xlarge"))
    assert errors == []
    assert [finding.pointer for finding in warnings] == ["/ResourceConfig/InstanceType"]
    assert re.fullmatch(r"ml\.zz9\.48xlarge is not among the values .* knows", warnings[0].detail)


@pytest.mark.parametrize("value", ["two words", "x" * 65, "", "a\nb", "line\n", "é"])
def test_an_unknown_value_that_is_not_plain_is_not_shown(check: PayloadCheck, value: str) -> None:
    errors, warnings = check(changed("ResourceConfig.InstanceType", value))
    assert errors == []
    assert [finding.detail.startswith("is not among") for finding in warnings] == [True]


def test_warnings_do_not_hide_errors(check: PayloadCheck) -> None:
    payload = changed("ResourceConfig.InstanceType", "ml.zz9.48xlarge") | {"Foo": 1}
    errors, warnings = check(payload)
    assert details(errors).keys() == {"/Foo"}
    assert details(warnings).keys() == {"/ResourceConfig/InstanceType"}


def test_every_pattern_of_the_model_is_enforced(check: TrainingJobCheck) -> None:
    assert check.unchecked == ()
    patterns = {SHAPES[name]["pattern"] for name in REACHABLE if "pattern" in SHAPES[name]}
    assert {SHAPES[name]["pattern"] for name in SAMPLES} == patterns


@pytest.mark.parametrize("shape", SAMPLES)
def test_each_pattern_takes_and_refuses_its_samples(shape: str) -> None:
    taken, refused = SAMPLES[shape]
    validators = [compiled({"pattern": rule}) for rule in full_match(SHAPES[shape]["pattern"])]
    assert validators
    assert all(validator.is_valid(taken) for validator in validators)
    if refused is not None:
        assert not all(validator.is_valid(refused) for validator in validators)


@pytest.mark.parametrize(
    ("java", "taken", "refused"),
    [
        ("a", ["a"], ["aa", "ba", "a\n", "\na"]),
        ("a|b", ["a", "b"], ["ab", "ax"]),
        (r"\.[.]", [".."], [".x", "x."]),
        (".", ["x", "😀", "\x0b"], ["\n", "\r", "\x85", "\u2028", "\u2029", ""]),
        (r"\p{Alnum}[\p{Digit}_]", ["a1", "A_"], ["é1", "a٣", "aa"]),
        (r"[\p{L}]+", ["aé漢"], ["1", " "]),
        (r"\w\d", ["_1"], ["é1", "a٣"]),
        ("a-*(?<!-)", ["a"], ["a-", "-"]),
        (r"[\S\s]*", ["", "\xa0\n\u2028"], []),
        (r"^a$", ["a"], ["a\n"]),
    ],
)
def test_a_java_pattern_means_the_whole_text(java: str, taken: list[str], refused: list[str]) -> None:
    validators = [compiled({"pattern": rule}) for rule in full_match(java)]
    assert validators
    assert [text for text in taken if not all(v.is_valid(text) for v in validators)] == []
    assert [text for text in refused if all(v.is_valid(text) for v in validators)] == []


@pytest.mark.parametrize("java", ["(?=a)b", "(?<!a)b", "a|b(?<!-)", r"(a)\1", "[a-z&&[^x]]", "[a[b]]", "(", "[a"])
def test_a_pattern_the_engine_cannot_take_is_left_out_and_told(java: str) -> None:
    rules = request_rules({"T": {"type": "string", "pattern": java, "max": 3}}, "T")
    assert rules.unchecked == (java,)
    assert compiled(rules.schema).is_valid("zzz")
    assert not compiled(rules.schema).is_valid("zzzz")


def test_types_of_shapes_that_the_request_may_grow_are_understood() -> None:
    shapes: dict[str, Any] = {
        "Tree": {
            "type": "structure",
            "members": {name: {"shape": name} for name in ("Trees", "Either", "Any", "Empty")},
        },
        "Trees": {"type": "list", "member": {"shape": "Tree"}},
        "Either": {"type": "structure", "union": True, "members": {"A": {"shape": "Time"}, "B": {"shape": "Blob"}}},
        "Any": {"type": "structure", "document": True, "members": {}},
        "Empty": {"type": "structure", "members": {}},
        "Time": {"type": "timestamp"},
        "Blob": {"type": "blob"},
    }
    validator = compiled(request_rules(shapes, "Tree").schema)
    valid = [
        {"Trees": [{"Trees": [{}]}]},
        {"Either": {"A": 1.5}},
        {"Either": {"A": "2026-01-02T03:04:05Z"}},
        {"Either": {"B": "aGk="}},
        {"Any": [1, None, {"x": "y"}]},
        {"Empty": {}},
    ]
    invalid = [
        {"Trees": [{"Trees": [{"x": 1}]}]},
        {"Either": {}},
        {"Either": {"A": 1, "B": ""}},
        {"Either": {"A": "tomorrow"}},
        {"Either": {"B": "a!"}},
        {"Empty": {"x": 1}},
    ]
    assert [value for value in valid if not validator.is_valid(value)] == []
    assert [value for value in invalid if validator.is_valid(value)] == []


def test_the_model_fits_the_limits_of_the_check() -> None:
    def levels(name: str) -> int:
        shape = SHAPES[name]
        inner = [*shape.get("members", {}).values(), *(shape[part] for part in ("member", "value") if part in shape)]
        return 1 + max((levels(member["shape"]) for member in inner), default=0)

    assert levels(ROOT) < MODEL_LEVELS
    assert max(SHAPES[name]["max"] for name in REACHABLE if SHAPES[name]["type"] == "list") < LONGEST_LIST


def test_findings_are_bounded_and_the_first_by_pointer(check: PayloadCheck) -> None:
    errors, warnings = check({f"x{i:05}": 1 for i in range(10_000)})
    known = {"/" + name for name in SHAPES[ROOT]["required"]}
    assert len(errors) == MOST_FINDINGS
    assert {finding.pointer for finding in errors} >= known
    assert errors[-1].pointer == f"/x{MOST_FINDINGS - len(known) - 1:05}"
    assert warnings == []


def nested(levels: int, inner: Any = None) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "payload",
    [
        {"Tags": [{}] * 3_400},
        {"Tags": [0] * 5_000},
        changed("HyperParameters", {f"\n{i}": 0 for i in range(900)}),
        changed("TrainingJobName", "a-" * 5_000),
        changed("AlgorithmSpecification.AlgorithmName", "-" * 10_000),
        changed("MlflowConfig", {"MlflowResourceArn": "arn:aws:sagemaker" * 600}),
        changed("Foo", nested(200)),
        changed("Foo", nested(5_000)),
        changed("Tags", nested(5_000)),
        changed("HyperParameters", {"x": nested(100_000)}),
        changed("HyperParameters", {"x": "\ud800"}),
        changed("HyperParameters", {"\udfff": "x"}),
    ],
    ids=lambda payload: "-".join(list(payload)[:1]),
)
def test_a_hostile_payload_is_refused_soon(check: PayloadCheck, payload: dict[str, Any]) -> None:
    begun = time.process_time()
    errors, _ = check(payload)
    # It takes 10 ms at most where nothing else runs; the bound is for a machine that is ten times slower.
    assert time.process_time() - begun < 0.1
    assert 0 < len(errors) <= MOST_FINDINGS
    assert all(len(finding.detail) < 500 for finding in errors)


def test_a_list_too_long_is_told_though_it_is_cut(check: PayloadCheck) -> None:
    errors, _ = check(changed("Tags", [{"Key": "k", "Value": "v"}] * 1_000))
    assert details(errors) == {"/Tags": "must have at most 50 items"}


def test_the_last_item_of_a_list_as_long_as_allowed_is_checked(check: PayloadCheck) -> None:
    errors, _ = check(changed("Foo", 1) | {"Tags": [{"Key": "k", "Value": "v"}] * 49 + [{"Key": "k"}]})
    assert details(errors).keys() == {"/Foo", "/Tags/49/Value"}


def test_the_check_costs_less_than_half_of_botocores() -> None:
    check, botocores = TrainingJobCheck(), ParamValidator()

    def fastest(call: Any, *arguments: Any) -> float:
        def once() -> float:
            begun = time.perf_counter()
            for _ in range(100):
                call(*arguments)
            return time.perf_counter() - begun

        return min(once() for _ in range(7))

    assert fastest(check, PAYLOAD) < fastest(botocores.validate, PAYLOAD, INPUT_SHAPE) / 2


# Values that fit hardly anywhere. No booleans and no 1.0: botocore takes True for an integer, and refuses 1.0.
ODD = st.sampled_from([None, 0.5, -1, -(2**31), "", "x", [], [None], {}, {"Key": []}])
NAMES = st.text("abc", min_size=1, max_size=3)


@st.composite
def values(draw: st.DrawFn, name: str, *, odd: int = 15) -> Any:
    """A value of the shape with the type, members and minima it asks for, but for one in `odd`."""

    def seldom() -> bool:
        return draw(st.integers(0, odd)) == odd

    if name != ROOT and seldom():
        return draw(ODD)
    shape = SHAPES[name]
    least = shape.get("min", 0)
    match shape["type"]:
        case "structure":
            required = [member for member in shape.get("required", []) if not seldom()]
            some = draw(st.lists(st.sampled_from(list(shape["members"])), max_size=3, unique=True))
            value = {
                member: draw(values(shape["members"][member]["shape"], odd=odd))
                for member in dict.fromkeys([*required, *some])
            }
            return value | {draw(NAMES): 1} if seldom() else value
        case "list":
            return draw(st.lists(values(shape["member"]["shape"], odd=odd), min_size=least, max_size=least + 1))
        case "map":
            return draw(st.dictionaries(NAMES, values(shape["value"]["shape"], odd=odd), max_size=2))
        case "string":
            return draw(st.sampled_from(shape["enum"])) if "enum" in shape else "x" * max(least, 1)
        case _:
            return draw(st.booleans() if shape["type"] == "boolean" else st.integers(least, least + 3))


def botocore_pointers(payload: dict[str, Any]) -> Iterator[str]:
    for reason, name, more in ParamValidator().validate(payload, INPUT_SHAPE)._errors:
        where = name.replace("[", "/").replace("]", "").replace(".", "/")
        match reason:
            case "missing required field":
                yield f"{where}/{more['required_name']}"
            case "unknown field":
                yield f"{where}/{more['unknown_param']}"
            case "invalid type" | "invalid range" | "invalid length":
                yield where
            case _:
                pytest.fail(f"botocore has a rule not heard of: {reason}")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=values(ROOT))
def test_what_botocore_checks_we_check_alike(check: PayloadCheck, payload: dict[str, Any]) -> None:
    """Required and unknown members, types and minima: all that botocore's own validator knows."""
    errors, warnings = check(payload)
    beyond = ("must match the pattern", "must have a name", "must be at most", "must have at most")
    ours = {finding.pointer for finding in errors if not finding.detail.startswith(beyond)}
    theirs = set(botocore_pointers(payload))
    if len(errors) < MOST_FINDINGS:
        assert ours == theirs
    else:
        assert ours <= theirs
    assert (errors == [] and warnings == []) == check._validator.is_valid(payload)  # type: ignore[attr-defined]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=values(ROOT, odd=5), secret=st.sampled_from(["s3cr3t, really", 918273645, -918273645, 918273.645]))
def test_no_value_is_told(check: PayloadCheck, payload: dict[str, Any], secret: str | float) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(member) for name, member in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else secret

    errors, warnings = check(filled(payload) | {"Unknown": secret})
    assert errors
    told = str(secret).lstrip("-")
    assert not [finding for finding in errors + warnings if told in finding.detail or told in finding.pointer]


@given(path=st.lists(st.text() | st.integers(0, 99)))
def test_a_pointer_leads_back_to_its_path(path: list[str | int]) -> None:
    tokens = json_pointer(path).split("/")[1:]
    assert [token.replace("~1", "/").replace("~0", "~") for token in tokens] == [str(token) for token in path]
