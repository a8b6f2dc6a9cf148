"""TrainingQueue of the SageMaker SDK's version 3 with a ModelTrainer, without AWS, on a queue with quota shares."""

from __future__ import annotations

import training_queue_calls as calls
from sagemaker.train.aws_batch.training_queue import TrainingQueue
from sagemaker.train.configs import Compute, InputData, OutputDataConfig, StoppingCondition
from sagemaker.train.model_trainer import ModelTrainer

trainer = ModelTrainer(
    training_image=calls.IMAGE,
    role=calls.ROLE_ARN,
    base_job_name="resnet",
    compute=Compute(instance_type="ml.g5.xlarge", instance_count=1, volume_size_in_gb=50),
    output_data_config=OutputDataConfig(s3_output_path=calls.MODELS),
    stopping_condition=StoppingCondition(max_runtime_in_seconds=3600),
    hyperparameters={"epochs": "10"},
)
calls.run(
    TrainingQueue,
    {"trainer": (trainer, [InputData(channel_name="train", data_source=calls.DATA)])},
    share="quota_share_name",
    attach="get_model_trainer",
)
