"""TrainingQueue of the SageMaker SDK's version 2 with an Estimator, a PyTorch and a ModelTrainer, without AWS."""

from __future__ import annotations

import boto3
import training_queue_calls as calls
from sagemaker import Session
from sagemaker.aws_batch.training_queue import TrainingQueue
from sagemaker.estimator import Estimator
from sagemaker.modules.configs import Compute, InputData, OutputDataConfig, StoppingCondition
from sagemaker.modules.train.model_trainer import ModelTrainer
from sagemaker.pytorch import PyTorch

# A bucket of one's own: the default one would be asked for at S3 and STS.
session = Session(boto3.Session(), default_bucket="models")
where = {
    "image_uri": calls.IMAGE,
    "role": calls.ROLE_ARN,
    "instance_count": 1,
    "instance_type": "ml.g5.xlarge",
    "output_path": calls.MODELS,
    "sagemaker_session": session,
}
estimator = Estimator(
    **where, base_job_name="resnet", hyperparameters={"epochs": 10}, tags=[{"Key": "team", "Value": "vision"}]
)
# Code that lies in S3 already: else it would be put there.
pytorch = PyTorch(
    **where, source_dir="s3://models/source.tar.gz", entry_point="train.py", framework_version="2.3", py_version="py311"
)
trainer = ModelTrainer(
    training_image=calls.IMAGE,
    role=calls.ROLE_ARN,
    base_job_name="resnet",
    compute=Compute(instance_type="ml.g5.xlarge", instance_count=1, volume_size_in_gb=50),
    output_data_config=OutputDataConfig(s3_output_path=calls.MODELS),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=3600),
    hyperparameters={"epochs": "10"},
)
channels = {"train": calls.DATA}
calls.run(
    TrainingQueue,
    {
        "trainer": (trainer, [InputData(channel_name="train", data_source=calls.DATA)]),
        "estimator": (estimator, channels),
        "pytorch": (pytorch, channels),
    },
    share="share_identifier",
    attach="get_estimator",
)
