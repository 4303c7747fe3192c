"""The cluster's configuration is what eksctl takes; the scripts are sound, and can be tried."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

EKS = Path(__file__).resolve().parents[2] / "deploy" / "eks"
SCRIPTS = sorted(path.name for path in EKS.glob("*.sh"))
CONFIG: dict[str, Any] = yaml.safe_load((EKS / "cluster.yaml").read_text())
GROUPS = {group["name"]: group for group in CONFIG["managedNodeGroups"]}
ACCOUNTS = {it["metadata"]["name"]: it for it in CONFIG["iam"]["serviceAccounts"]}

Validate = Callable[[dict[str, Any]], None]


def test_eksctl_takes_the_configuration(validate: Validate) -> None:
    validate(CONFIG)


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("train-gpu", "spots", True),
        ("train-cpu", "minSize", "0"),
        ("train-gpu", "taints", [{"key": "gpu", "effect": "Never"}]),
        ("system", "instanceTypes", "m7i.large"),
    ],
)
def test_a_wrong_configuration_is_refused(
    group: str, key: str, value: Any, validate: Validate
) -> None:
    broken = copy.deepcopy(CONFIG)
    next(it for it in broken["managedNodeGroups"] if it["name"] == group)[key] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_training_nodes_cost_nothing_until_a_training_needs_them() -> None:
    for name in ("train-cpu", "train-gpu"):
        assert GROUPS[name]["minSize"] == GROUPS[name]["desiredCapacity"] == 0
        assert GROUPS[name]["spot"] is True
        # Otherwise the autoscaler does not know what a node of an empty group would be.
        assert GROUPS[name]["propagateASGTags"] is True
    # Pods that want no GPU do not keep such a node.
    assert GROUPS["train-gpu"]["taints"] == [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    ]


def test_roles_reach_one_bucket() -> None:
    for name in ("fakenews-train", "fakenews-mlflow"):
        for statement in ACCOUNTS[name]["attachPolicy"]["Statement"]:
            assert statement["Resource"].startswith("arn:aws:s3:::BUCKET_NAME")
            assert not any("*" in action for action in statement["Action"])
            assert all(action.startswith("s3:") for action in statement["Action"])
    objects = ACCOUNTS["fakenews-mlflow"]["attachPolicy"]["Statement"][1]
    assert objects["Resource"] == "arn:aws:s3:::BUCKET_NAME/mlflow/*"


def test_roles_are_those_that_the_manifests_name() -> None:
    named = {
        role
        for path in EKS.parent.rglob("*.yaml")
        for role in re.findall(r"arn:aws:iam::ACCOUNT_ID:role/([\w-]+)", path.read_text())
    }
    assert named == {account["roleName"] for account in ACCOUNTS.values()}
    assert all(account["roleOnly"] for account in ACCOUNTS.values())


def test_network_policies_are_kept_to() -> None:
    (network,) = [addon for addon in CONFIG["addons"] if addon["name"] == "vpc-cni"]
    assert json.loads(network["configurationValues"]) == {"enableNetworkPolicy": "true"}


def test_the_autoscaler_has_the_minor_version_of_the_cluster() -> None:
    (image,) = yaml.safe_load((EKS / "autoscaler/kustomization.yaml").read_text())["images"]
    assert image["newTag"].startswith(f"v{CONFIG['metadata']['version']}.")


def test_every_placeholder_is_filled_in() -> None:
    folders = [EKS / "autoscaler", EKS.parent / "kubernetes/overlays/eks"]
    text = "".join(path.read_text() for folder in folders for path in folder.glob("*.yaml"))
    placeholders = set(re.findall(r"\b[A-Z_]+_(?:ID|NAME)\b", text))
    assert placeholders >= {"ACCOUNT_ID", "BUCKET_NAME", "CLUSTER_NAME", "FILE_SYSTEM_ID"}
    assert placeholders == set(
        re.findall(r"s/([A-Z_]+_(?:ID|NAME))/", (EKS / "create.sh").read_text())
    )


def test_shellcheck_finds_nothing() -> None:
    # The one that was installed with the other tools of a developer.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shellcheck = shutil.which("shellcheck", path=path)
    assert shellcheck is not None
    done = subprocess.run(
        [shellcheck, "--external-sources", *SCRIPTS],
        cwd=EKS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


# What stands in for a tool: notes how it was called, and answers what AWS would.
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$(basename "$0") $*" in
  *" kustomize "*) exec "$REAL_KUBECTL" "$@" ;;
  *"create iamserviceaccount"*) cat > "$CALLS.config" ;;
  *" apply "*) cat >> "$CALLS.applied" ;;
  *"create cluster"*) cat > "$CALLS.config"; exit "${FAIL_CREATE:-0}" ;;
  *--config-file=-*) cat > /dev/null ;;
  *"create secret"*) cat > /dev/null ;;
  *get-caller-identity*) echo 123456789012 ;;
  *head-bucket* | *describe-repositories* | *"get secret"*) exit "${MISSING:-1}" ;;
  *"describe-cluster"*SecurityGroup*) echo sg-1 ;;
  *"describe-cluster"* | *describe-stacks*) exit "${MISSING:-1}" ;;
  *describe-file-systems*LifeCycleState*) echo available ;;
  *describe-file-systems*)
    if [ "${MISSING:-1}" = 0 ] || grep -q create-file-system "$CALLS"; then
      echo fs-12345678
    else
      echo None
    fi ;;
  *describe-subnets*) printf 'subnet-a\\tsubnet-b\\n' ;;
  *describe-mount-targets*MountTargetId*)
    if ! grep -q delete-mount-target "$CALLS"; then printf 'fsmt-a\\tfsmt-b\\n'; fi ;;
  *describe-mount-targets*) if [ "${MISSING:-1}" = 0 ]; then echo subnet-a; fi ;;
  *describe-volumes*) echo vol-1 ;;
esac
"""


class Scripts:
    """Runs the scripts with tools that only take notes."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.path = f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
        beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.kubectl = shutil.which("kubectl", path=beside)
        for name in ("aws", "eksctl", "kubectl"):
            (self.bin / name).write_text(TOOL)
            (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> Any:
        for path in self.calls.parent.glob("calls*"):
            path.unlink()
        self.calls.touch()
        return subprocess.run(
            [str(EKS / script), *arguments],
            env={
                "PATH": self.path,
                "CALLS": str(self.calls),
                "REAL_KUBECTL": str(self.kubectl),
                **variables,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def called(self, part: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if part in line]


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    return Scripts(tmp_path)


CREATE = ("create.sh", "--bucket", "my-bucket")


@pytest.mark.parametrize("command", [CREATE, ("delete.sh", "--data")], ids=lambda it: it[0])
def test_a_dry_run_calls_nothing_and_shows_everything(
    command: tuple[str, ...], scripts: Scripts
) -> None:
    done = scripts.run(*command, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert scripts.calls.read_text() == ""
    made = command[0].removesuffix(".sh")
    assert f"+ eksctl {made} cluster" in done.stdout
    assert "+ aws efs " in done.stdout


@pytest.mark.parametrize("script", ["create.sh", "delete.sh"])
def test_missing_tools_are_named_together(script: str, scripts: Scripts) -> None:
    (scripts.bin / "aws").unlink()
    (scripts.bin / "eksctl").unlink()
    scripts.path = str(scripts.bin)
    for name in ("bash", "dirname", "awk", "sed"):
        (scripts.bin / name).symlink_to(str(shutil.which(name)))
    arguments = CREATE[1:] if script == "create.sh" else ()
    done = scripts.run(script, *arguments, "--yes")
    assert done.returncode == 1
    assert "error: not installed: aws eksctl" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", [CREATE, ("delete.sh",)], ids=lambda it: it[0])
def test_nothing_is_done_without_a_word(command: tuple[str, ...], scripts: Scripts) -> None:
    done = scripts.run(*command)
    assert done.returncode == 1
    assert "add --yes if you mean it" in done.stderr
    assert scripts.calls.read_text() == ""


@pytest.mark.parametrize("bucket", ["", "Capital", "a", "a_b"])
def test_a_wrong_bucket_is_refused(bucket: str, scripts: Scripts) -> None:
    done = scripts.run("create.sh", "--bucket", bucket, "--yes")
    assert done.returncode == 1
    assert f"--bucket '{bucket}'" in done.stderr


def test_create_makes_all_of_it(scripts: Scripts) -> None:
    done = scripts.run(*CREATE, "--yes")
    assert done.returncode == 0, done.stderr
    for part in (
        "aws s3 mb s3://my-bucket",
        "aws ecr create-repository --repository-name fakenews-train",
        "aws ecr create-repository --repository-name fakenews-mlflow",
        "eksctl create cluster",
        "aws efs create-file-system",
        "kubectl create secret generic fakenews-postgres",
    ):
        assert len(scripts.called(part)) == 1, part
    assert len(scripts.called("create-mount-target")) == 2
    config = Path(f"{scripts.calls}.config").read_text()
    assert "arn:aws:s3:::my-bucket/*" in config
    assert "BUCKET_NAME" not in config
    applied = Path(f"{scripts.calls}.applied").read_text()
    assert not re.search(r"[A-Z]+_(ID|NAME)\b", applied.replace("AWS_ACCESS_KEY_ID", ""))
    for part in (
        "arn:aws:iam::123456789012:role/fakenews-train",
        "ARTIFACTS: s3://my-bucket/mlflow",
        "fileSystemId: fs-12345678",
        "image: 123456789012.dkr.ecr.eu-central-1.amazonaws.com/fakenews-mlflow:",
        "k8s.io/cluster-autoscaler/fakenews",
    ):
        assert part in applied
    # The password is given to kubectl by a pipe, so that no list of processes shows it.
    assert "--from-file=password=/dev/stdin" in scripts.called("create secret")[0]


def test_create_goes_on_where_it_failed(scripts: Scripts) -> None:
    failed = scripts.run(*CREATE, "--yes", FAIL_CREATE="1")
    assert failed.returncode == 1
    assert "run this again" in failed.stderr
    assert not scripts.called("create-file-system")
    again = scripts.run(*CREATE, "--yes", MISSING="0")
    assert again.returncode == 0, again.stderr
    for part in ("s3 mb", "create cluster", "create-file-system", "create secret"):
        assert not scripts.called(part), part
    for part in ("create nodegroup", "create iamserviceaccount", "create addon"):
        assert len(scripts.called(part)) == 1, part
    # The one that was there stays.
    (call,) = scripts.called("create-mount-target")
    assert "--subnet-id subnet-b" in call


@pytest.mark.parametrize("data", [False, True])
def test_delete_keeps_data_unless_told_otherwise(data: bool, scripts: Scripts) -> None:
    done = scripts.run("delete.sh", "--yes", *["--data"] * data, MISSING="0")
    assert done.returncode == 0, done.stderr
    calls = scripts.calls.read_text()
    assert len(scripts.called("delete-mount-target")) == 2
    # The network goes with the cluster, and mount targets hold on to it.
    assert calls.index("delete-mount-target") < calls.index("eksctl delete cluster")
    assert bool(scripts.called("delete-file-system")) == data
    assert bool(scripts.called("delete-volume --volume-id vol-1")) == data
    assert "s3 rb" not in calls


def test_delete_of_what_is_gone_succeeds(scripts: Scripts) -> None:
    done = scripts.run("delete.sh", "--yes")
    assert done.returncode == 0, done.stderr
    assert "there is none" in done.stdout
    assert not scripts.called("eksctl delete")
