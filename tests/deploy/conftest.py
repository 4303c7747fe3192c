"""Strict, offline checks of manifests: Kubernetes' own kinds, and those of operators."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubeflow_trainer_api.models.trainer_v1alpha1_training_runtime import (
    TrainerV1alpha1TrainingRuntime,
)
from pydantic import BaseModel

SCHEMAS = Path(__file__).parent / "schemas"

# The newest that EKS offers, and the newest there is.
VERSIONS = ("1.36", "1.37")

# A quantity and a port are wrappers in the models, and plain values in a manifest.
_PLAIN = {
    "IoK8sApimachineryPkgApiResourceQuantity": {"type": ["string", "integer", "number"]},
    "IoK8sApimachineryPkgUtilIntstrIntOrString": {"type": ["string", "integer"]},
}


def _strict(node: Any) -> Any:
    """A schema that refuses unknown fields, and null for those that are left out."""
    if isinstance(node, list):
        return [_strict(item) for item in node if item != {"type": "null"}]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        strict["additionalProperties"] = False
    return strict


def _of_model(model: type[BaseModel]) -> dict[str, Any]:
    schema = _strict(model.model_json_schema(by_alias=True))
    schema["$defs"] |= _PLAIN
    # Optional to a client, which reads what a server has completed.
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return schema


@functools.cache
def _schema(api_version: str, kind: str) -> dict[str, Any] | None:
    """Of a kind that is not Kubernetes' own."""
    match api_version, kind:
        case "trainer.kubeflow.org/v1alpha1", "TrainJob":
            return _of_model(TrainerV1alpha1TrainJob)
        case "trainer.kubeflow.org/v1alpha1", "TrainingRuntime":
            return _of_model(TrainerV1alpha1TrainingRuntime)
        case "kubeflow.org/v1", "PyTorchJob":
            return json.loads((SCHEMAS / "pytorchjob-v1.json").read_text())
        case "eksctl.io/v1alpha5", "ClusterConfig":
            return json.loads((SCHEMAS / "eksctl-v1alpha5.json").read_text())
    return None


def _templates(node: Any) -> Iterator[dict[str, Any]]:
    """Templates of pods, wherever a kind keeps them."""
    if isinstance(node, dict):
        spec = node.get("spec")
        if isinstance(spec, dict) and "containers" in spec:
            yield node
            return
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _templates(item)


@pytest.fixture(scope="session")
def pod_templates() -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    return lambda found: list(_templates(found))


@pytest.fixture(scope="session")
def validate() -> Callable[[dict[str, Any]], None]:
    """Raises what `jsonschema` does for an object that a cluster would not take as it is."""

    def check(found: dict[str, Any]) -> None:
        schema = _schema(found["apiVersion"], found["kind"])
        if schema is None:
            for version in VERSIONS:
                kubernetes_validate.validate(found, version, strict=True)
            return
        jsonschema.Draft202012Validator(schema).validate(found)
        # An operator's own schema may say little of its pods.
        for template in _templates(found):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
            for version in VERSIONS:
                kubernetes_validate.validate(pod, version, strict=True)

    return check
