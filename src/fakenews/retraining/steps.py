"""The steps of a cycle. Each does its work, mostly by a command, and leaves a record.

    decide -> prepare -> train -> evaluate -> gate -> register -> deploy -> watch -> promote

Whatever a step makes lies in the cycle's folder, or is found again by its content: done twice,
because the process was killed before the record, it ends the same.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fakenews.bundle import MANIFEST, verify
from fakenews.cluster.job import key_of
from fakenews.errors import BundleError, RetrainingError
from fakenews.retraining.cycle import Cycle, Outcome, Record, Step, last_trained
from fakenews.retraining.decision import Facts, decide
from fakenews.retraining.promote import read_gate
from fakenews.retraining.selection import TRAIN, WINDOW
from fakenews.retraining.setting import EVALUATE, Setting
from fakenews.tracking.artifacts import BUNDLE, download_run
from fakenews.tracking.folder import read_record

log = logging.getLogger(__name__)

_REFUSED = 2  # status of scripts/gate.py
_POLL = 1.0
# Of a champion's options, those that its successor has of its own.
_NOT_OF_THE_MODEL = {
    *("data", "name", "register", "resume", "bundle", "test"),
    *("hydra", "paths", "logger", "cluster", "sweep", "threads"),
}


def _decide(cycle: Cycle, setting: Setting) -> Record:
    standing = setting.registry.status()
    champion = standing.held("champion")
    if champion is None or champion.run is None:
        raise RetrainingError(
            f"{setting.name} has no champion of a run: promote a version first, with python "
            f"scripts/promote.py name={setting.name} action=promote version=N"
        )
    base = _champion(cycle, setting, champion.run)
    report = read_report(setting.report)
    if report is None:
        log.warning("there is no report=%s: drift and decay are no reasons", setting.report)
    decision = decide(
        report,
        setting.policy,
        Facts(
            now=datetime.now(UTC),
            trained_at=champion.created,
            last_retrained_at=last_trained(setting.cycles, name=setting.name),
            new_labels=setting.source.new_labels(base=base),
            asked=cycle.origin.reason is not None,
        ),
    )
    return cycle.write(
        "decide",
        Outcome.NEXT if decision.retrain else Outcome.END,
        decision.message,
        champion=champion.version,
        champion_run=champion.run,
        decision=decision.to_json(),
    )


def _prepare(cycle: Cycle, setting: Setting) -> Record:
    base = _champion(cycle, setting, cycle["decide"].facts["champion_run"])
    made = setting.source.make(base=base, out=setting.datasets)
    folder = setting.datasets / made.version
    options = made.overrides(folder)
    if setting.commands.prepare is not None:
        prepared = folder / "prepared"
        setting.call(
            cycle,
            "prepare",
            "scripts/prepare.py",
            *options,
            f"out={prepared}",
            *setting.commands.prepare,
        )
        options = ["data=shards", f"data.path={prepared}"]
    return cycle.write(
        "prepare",
        Outcome.NEXT,
        f"dataset {made.version}: {made.count(TRAIN):,} rows to train on, "
        f"{made.count(TRAIN, 'feedback'):,} of them labelled since, and "
        f"{made.count(WINDOW):,} held out",
        dataset=made.version,
        folder=str(folder),
        options=options,
    )


def _train(cycle: Cycle, setting: Setting) -> Record:
    folder = cycle.folder / "run"
    options = [
        *cycle["prepare"].facts["options"],
        f"name={setting.name}",
        f"logger.tracking_uri={setting.tracking_uri}",
        *like_champion(cycle.folder / "champion" / "bundle", setting.commands.train),
    ]
    if setting.commands.sweep is not None:
        study = f"{setting.name}-{cycle.folder.name}"
        setting.call(
            cycle,
            "train",
            "train.py",
            "-m",
            "sweep=optuna",
            f"sweep.study={study}",
            *options,
            *setting.commands.sweep,
        )
        options = [f"experiment={study}_best", *options]
    # Started again, it goes on from its last checkpoint, or says that it is done.
    setting.call(cycle, "train", "train.py", *options, f"hydra.run.dir={folder}")
    run_id = read_record(folder).get("mlflow_run_id")
    made = [
        found for found in setting.registry.status().versions.values() if found.run == run_id
    ]
    if run_id is None or not made:
        raise RetrainingError(
            f"{folder} was not registered as a version of {setting.name}: leave logger=mlflow "
            "and register as they are in commands.train"
        )
    version = max(found.version for found in made)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return cycle.write(
        "train",
        Outcome.NEXT,
        f"version {version} of {setting.name} is trained",
        version=version,
        run=run_id,
        metrics=result["metrics"],
    )


def _evaluate(cycle: Cycle, setting: Setting) -> Record:
    """Of the newest labelled rows, if there are any: those of the test set are in the run."""
    dataset = Path(cycle["prepare"].facts["folder"])
    part = "window" if (dataset / "window").is_dir() else "test"
    out = cycle.folder / "evaluation"
    setting.call(
        cycle,
        "evaluate",
        EVALUATE,
        f"bundle={cycle.folder / 'run'}",
        f"path={dataset / part}",
        f"out={out}",
        *setting.commands.evaluate,
    )
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return cycle.write(
        "evaluate", Outcome.NEXT, f"evaluated on the {part} rows", part=part, metrics=metrics
    )


def _gate(cycle: Cycle, setting: Setting) -> Record:
    dataset = Path(cycle["prepare"].facts["folder"])
    out = cycle.folder / "gate"
    window = [f"window={dataset / 'window'}"] if (dataset / "window").is_dir() else []
    status = setting.call(
        cycle,
        "gate",
        "scripts/gate.py",
        f"champion={_champion(cycle, setting, cycle['decide'].facts['champion_run'])}",
        f"challenger={cycle.folder / 'run'}",
        f"test={dataset / 'test'}",
        *window,
        f"out={out}",
        *setting.commands.gate,
        ends=(0, _REFUSED),
    )
    verdict = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    accepted = status == 0
    setting.registry.note_gate(cycle["train"].facts["version"], read_gate(out / "gate.json"))
    return cycle.write(
        "gate",
        Outcome.NEXT if accepted else Outcome.END,
        str(verdict["reason"]),
        accepted=accepted,
        state=verdict["state"],
    )


def _register(cycle: Cycle, setting: Setting) -> Record:
    version = cycle["train"].facts["version"]
    data = json.loads((cycle.folder / "run" / "data.json").read_text(encoding="utf-8"))
    setting.registry.note_data(
        version, digest=data["data_hash"], dataset=cycle["prepare"].facts["dataset"]
    )
    setting.promote(cycle, "register", "challenge", "serving=none")
    return cycle.write("register", Outcome.NEXT, f"version {version} is the challenger")


def _deploy(cycle: Cycle, setting: Setting) -> Record:
    version = cycle["train"].facts["version"]
    if setting.state is None or not setting.trial.seconds:
        why = "nothing is served here" if setting.state is None else "trial.seconds=0"
        return cycle.write("deploy", Outcome.NEXT, f"version {version} is not tried: {why}")
    setting.promote(cycle, "deploy", "challenge", "trial=true", f"share={setting.trial.share}")
    state = setting.state
    assert state.canary is not None  # noqa: S101 the command has succeeded
    return cycle.write(
        "deploy",
        Outcome.NEXT,
        f"version {version} answers {100 * setting.trial.share:g}% of the requests",
        archive=state.canary.version,
    )


def _watch(cycle: Cycle, setting: Setting) -> Record:
    """Until the time is over, or the gateway gives the canary up."""
    version = cycle["train"].facts["version"]
    archive = cycle["deploy"].facts.get("archive")
    if archive is None:
        return cycle.write("watch", Outcome.NEXT, "there was no trial to watch")
    # From its beginning: a step that was killed does not begin anew.
    left = setting.trial.seconds - (datetime.now(UTC) - cycle["deploy"].at).total_seconds()
    log.info("watching version %d for %.0f s", version, max(left, 0))
    end = time.monotonic() + left
    while True:
        state = setting.state
        if state is None or state.canary is None or state.canary.version != archive:
            break
        if time.monotonic() >= end:
            return cycle.write(
                "watch",
                Outcome.NEXT,
                f"version {version} did well for {setting.trial.seconds:g} s",
            )
        time.sleep(min(_POLL, max(end - time.monotonic(), 0)))
    reason = "somebody has ended its trial"
    if state is not None and state.aborted is not None and state.aborted.version == archive:
        reason = f"the gateway gave it up: {state.aborted.reason}"
    elif state is not None and state.champion == archive:
        return cycle.write("watch", Outcome.NEXT, f"somebody has promoted version {version}")
    setting.promote(cycle, "watch", "rollback")
    return cycle.write("watch", Outcome.END, f"version {version} is rolled back: {reason}")


def _promote(cycle: Cycle, setting: Setting) -> Record:
    version = cycle["train"].facts["version"]
    setting.promote(cycle, "promote", "promote")
    before = cycle["decide"].facts["champion"]
    return cycle.write(
        "promote", Outcome.NEXT, f"version {version} is the champion, in place of {before}"
    )


DO: Mapping[Step, Callable[[Cycle, Setting], Record]] = {
    "decide": _decide,
    "prepare": _prepare,
    "train": _train,
    "evaluate": _evaluate,
    "gate": _gate,
    "register": _register,
    "deploy": _deploy,
    "watch": _watch,
    "promote": _promote,
}
"""What does each step, but `notify`."""


def _champion(cycle: Cycle, setting: Setting, run_id: str) -> Path:
    """The champion's run, in the cycle's folder: whoever is champion later, it stays."""
    folder = cycle.folder / "champion"
    if (folder / BUNDLE / MANIFEST).is_file():
        return folder
    draft = cycle.folder / ".champion"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        download_run(uri=setting.tracking_uri, run=run_id, folder=draft)
        # A damaged copy would fail all steps after this one, also when the store is mended.
        verify(draft / BUNDLE)
        return draft.rename(folder)
    except BundleError as error:
        raise RetrainingError(
            f"the bundle of the champion, run {run_id}, is damaged in the MLflow store "
            f"({str(error).replace(f'{draft}/', '')}): restore it there, or promote another "
            "version"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def like_champion(bundle: Path, changes: Sequence[str]) -> list[str]:
    """The options of `train.py` that make another model like a champion.

    Args:
        bundle: Of the champion, which has the options of its training.
        changes: Options that replace those.

    Returns:
        Each option once; without those of the data, of the run, and of the machine.
    """
    provenance = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["provenance"]
    options: dict[str, str] = {}
    for option in (*provenance.get("overrides", ()), *changes):
        options[key_of(option)] = option
    own = {key_of(option) for option in changes}
    return [
        option
        for key, option in options.items()
        if key in own or key.partition(".")[0].partition("/")[0] not in _NOT_OF_THE_MODEL
    ]


def read_report(path: Path) -> dict[str, Any] | None:
    """The last verdict of the monitor; None where there is none.

    Raises:
        RetrainingError: It is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RetrainingError(f"report={path} is no verdict of the monitor: {error}") from error
    if not isinstance(found, dict):
        raise RetrainingError(f"report={path} is no verdict of the monitor")
    return found
