"""Two DAGs: the served model is watched, and replaced when that is called for.

`fakenews_monitoring` judges the prediction log on a schedule; an alarm is an asset.
`fakenews_retraining` runs a cycle of `scripts/retrain.py`, one step a task, on that asset or on
a schedule of its own. Tasks only start commands of the project, in its own environment or in a
pod. Each step leaves a record in the cycle's folder and is not done twice, so a task may be
retried, cleared, or killed at any time. What is decided depends on the model and its log as
they are now, never on a run's logical date: backfilled runs end at `decide`, in the cool-down.

Settings are environment variables of Airflow; deploy/airflow/README.md lists them.
"""

import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Asset, BaseOperator, chain
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable

HOME = Path(os.environ.get("FAKENEWS_HOME") or Path(__file__).resolve().parents[3])
PYTHON = os.environ.get("FAKENEWS_PYTHON") or f"{HOME}/.venv/bin/python"
MODEL = os.environ.get("FAKENEWS_MODEL", "sample-fusion")
# Options of the two commands, beside the model, as they are typed.
MONITOR = os.environ.get("FAKENEWS_MONITOR", "")
RETRAIN = os.environ.get("FAKENEWS_RETRAIN", "")
MONITOR_SCHEDULE = os.environ.get("FAKENEWS_MONITOR_SCHEDULE", "15 * * * *")
RETRAIN_SCHEDULE = os.environ.get("FAKENEWS_RETRAIN_SCHEDULE", "0 4 * * 1")
RUNNER = os.environ.get("FAKENEWS_RUNNER", "local")
# Before the first retry; doubled before each other, up to half an hour.
RETRY = timedelta(seconds=float(os.environ.get("FAKENEWS_RETRY_SECONDS", "60")))

# Statuses of a step that ends the cycle, and of `alarm` when there is none.
NOTHING_LEFT = 2

ALARM = Asset(name="fakenews_alarm", uri=f"x-fakenews://{MODEL}/alarm")

# Of each step, how long it may take and how often it is tried again.
STEPS: dict[str, tuple[timedelta, int]] = {
    "decide": (timedelta(minutes=10), 2),
    "prepare": (timedelta(hours=6), 2),
    "train": (timedelta(days=2), 3),
    "evaluate": (timedelta(hours=1), 2),
    "gate": (timedelta(hours=2), 2),
    "register": (timedelta(minutes=10), 3),
    "deploy": (timedelta(minutes=30), 2),
    "watch": (timedelta(hours=6), 2),
    "promote": (timedelta(minutes=30), 3),
    "notify": (timedelta(minutes=10), 0),
}


# Of a person, who may type anything: no part of a line of shell.
ENVIRONMENT = {"FAKENEWS_REASON": "{{ params.reason or '' }}"}


def command(task_id: str, shell: str, **settings: Any) -> BaseOperator:
    """A task that runs a line of shell where the project is; status 2 skips what follows."""
    if RUNNER == "kubernetes":
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
        from kubernetes.client import models as k8s

        claim = k8s.V1PersistentVolumeClaimVolumeSource(
            claim_name=os.environ.get("FAKENEWS_VOLUME", "shared")
        )
        return KubernetesPodOperator(
            task_id=task_id,
            name=f"fakenews-{task_id}",
            namespace=os.environ.get("FAKENEWS_NAMESPACE", "fakenews"),
            image=os.environ.get("FAKENEWS_IMAGE", "fakenews-retrain"),
            service_account_name=os.environ.get("FAKENEWS_SERVICE_ACCOUNT", "training"),
            cmds=["tini", "--", "with-secrets", "sh", "-c"],
            arguments=[shell],
            env_vars=ENVIRONMENT,
            volumes=[k8s.V1Volume(name="data", persistent_volume_claim=claim)],
            volume_mounts=[k8s.V1VolumeMount(name="data", mount_path="/data")],
            skip_on_exit_code=NOTHING_LEFT,
            # One that Airflow has lost sight of is found again, not started twice.
            reattach_on_restart=True,
            on_finish_action="delete_succeeded_pod",
            **settings,
        )
    from airflow.providers.standard.operators.bash import BashOperator

    return BashOperator(
        task_id=task_id,
        bash_command=shell,
        cwd=str(HOME),
        env=ENVIRONMENT,
        skip_on_exit_code=NOTHING_LEFT,
        append_env=True,
        **settings,
    )


def line(script: str, *options: str, more: str = "") -> str:
    """A command of the project, in a shell."""
    python = "python" if RUNNER == "kubernetes" else shlex.quote(PYTHON)
    return " ".join([python, script, *options, *map(shlex.quote, shlex.split(more))])


# Every run of the DAG is a cycle of its own, however often its tasks run.
CYCLE = "airflow_{{ dag_run.run_after.strftime('%Y-%m-%d_%H-%M-%S-%f') }}"

COMMON: dict[str, Any] = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {
        "owner": "fakenews",
        "retry_delay": RETRY,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
    },
    "tags": ["fakenews"],
}

with DAG(
    "fakenews_monitoring",
    schedule=MONITOR_SCHEDULE or None,
    doc_md="Judges the prediction log; an alarm is the asset `fakenews_alarm`.",
    **COMMON,
):
    judged = line(
        "scripts/monitor.py",
        shlex.quote(f"registered={MODEL}@champion"),
        more=MONITOR,
    )
    # An alarm (2) is what it is for; what could not be judged (3) is a red task.
    monitor = command(
        "monitor",
        f"{judged}; status=$?; [ $status = 2 ] || exit $status",
        execution_timeout=timedelta(minutes=30),
        retries=1,
    )
    alarm = command(
        "alarm",
        line("scripts/retrain.py", "step=alarm", f"name={shlex.quote(MODEL)}", more=RETRAIN),
        execution_timeout=timedelta(minutes=5),
        retries=1,
        outlets=[ALARM],
    )
    monitor >> alarm

with DAG(
    "fakenews_retraining",
    schedule=AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(RETRAIN_SCHEDULE, timezone="UTC"), assets=[ALARM]
    ),
    doc_md="Decides, trains, compares, tries and promotes; `reason` asks for it by hand.",
    params={"reason": ""},
    **COMMON,
):
    tasks: list[BaseOperator] = []
    for step, (timeout, retries) in STEPS.items():
        options = [
            f"step={step}",
            # Every run of the DAG is a cycle of its own, however often its tasks run.
            f"cycle={CYCLE}",
            f"name={shlex.quote(MODEL)}",
        ]
        tasks.append(
            command(
                step,
                line("scripts/retrain.py", *options, more=RETRAIN),
                execution_timeout=timeout,
                retries=retries,
                # It tells of what failed, too.
                trigger_rule="all_done" if step == "notify" else "all_success",
            )
        )
    chain(*tasks)
