"""The command line as a user meets it: one line, the exit status, nothing left behind."""

import contextlib
import logging
import os
import pickle
import runpy
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fakenews import cli
from fakenews.config import RUN_ID
from fakenews.errors import ConfigError, DataError, Interrupted, TrackingError

ROOT = Path(__file__).resolve().parents[1]

# MLflow's models use an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")


@dataclass
class Done:
    status: int
    out: str
    err: str
    folder: Path

    @property
    def error(self) -> str:
        """The last thing said."""
        return self.err.strip().splitlines()[-1]


Train = Callable[..., Done]


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Train:
    """Runs train.py in this process, which has the heavy libraries already."""

    def run(*arguments: str) -> Done:
        paths = [f"paths.runs={tmp_path}/runs"]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments, *paths])
        monkeypatch.delenv(RUN_ID, raising=False)
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        handlers = list(logging.root.handlers)
        terminate = signal.getsignal(signal.SIGTERM)
        status: int | str | None = 0
        try:
            runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
        except SystemExit as end:
            status = end.code
        finally:
            signal.signal(signal.SIGTERM, terminate)
            for handler in set(logging.root.handlers) - set(handlers):
                logging.root.removeHandler(handler)
                handler.close()
            logging.root.handlers[:] = handlers
        assert isinstance(status, int)
        shown = capsys.readouterr()
        return Done(status, shown.out, shown.err, tmp_path)

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=cvs"], "data=cvs does not exist: did you mean data=csv? choose constraint,"),
        (["model=classifer"], "model=classifer does not exist: choose fusion, seed, tabular,"),
        (["data.pth=x"], "data.pth is not an option: did you mean data.path?"),
        (["logger=csv", "logger.tracking_uri=x"], "logger.tracking_uri is not an option: it"),
        (["lr=1"], "lr is not an option: did you mean optimizer.lr?"),
        (
            ["storage_options.endpoint_url=http://x"],
            "storage_options is not an option: did you mean data.storage_options?",
        ),
        (["nonsense=1"], "nonsense is not an option: --cfg job shows the options"),
        (["data.path=["], "cannot read the argument 'data.path=[': write KEY=VALUE"),
        (["seed=interval(1)"], "cannot read the distribution 'seed=interval(1)': write"),
        (["seed"], "cannot read the argument 'seed': write KEY=VALUE"),
        (["seed=1,2"], "seed=1,2 is more than one value: add -m"),
        (["resume=nowhere"], "resume=nowhere: nowhere/checkpoints/last.ckpt does not exist"),
        (["name=a/b"], "name=a/b: use letters, digits"),
        (["=3"], "Config group override must be a string"),
        (["--config-name=other"], "configuration=other does not exist"),
        (["--cfg", "job", "--run"], "Only one of --run, --multirun, --cfg"),
    ],
)  # fmt: skip
def test_mistake_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, train: Train
) -> None:
    done = train(*arguments)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"error: {message}")
    assert not list(done.folder.iterdir())


def test_faults_are_listed_and_the_folder_that_hydra_made_is_gone(train: Train) -> None:
    done = train("loader.batch_size=0", "data.near_duplicates=2")
    assert done.status == 1
    assert done.err == (
        "error: several faults:\n"
        "  - loader.batch_size=0: it should be greater than or equal to 1\n"
        "  - data.near_duplicates=2: it should be less than or equal to 1\n"
    )
    assert not any((done.folder / "runs").iterdir())


def test_empty_file_leaves_no_folder_and_no_tracked_run(train: Train, tmp_path: Path) -> None:
    store = tmp_path / "mlflow.db"
    (empty := tmp_path / "empty.csv").touch()
    done = train("data=csv", f"data.path={empty}", f"logger.tracking_uri=sqlite:///{store}")
    assert done.status == 1
    assert done.err == f"error: {empty}: the file is empty\n"
    assert not any((done.folder / "runs").iterdir())
    with contextlib.closing(sqlite3.connect(store)) as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (0,)


def test_missing_file_is_told_before_libraries_load(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['torch'] = None; "
        "runpy.run_path('train.py', run_name='__main__')"
    )
    given = ["data=csv", "data.path=nowhere.csv", f"paths.runs={tmp_path}/runs"]
    done = subprocess.run(
        [sys.executable, "-c", code, *given],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "error: nowhere.csv: no such file\n")
    assert not any((tmp_path / "runs").iterdir())


def test_path_that_refers_to_nothing_is_named(train: Train) -> None:
    done = train("data=csv", "data.path=${nothing}")
    assert done.status == 1
    assert done.err.startswith("error: data.path: Interpolation key 'nothing' not found")


def test_folder_with_a_users_file_stays(train: Train, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = train("loader.batch_size=0", f"hydra.run.dir={tmp_path}/mine")
    assert done.status == 1
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_unwritable_runs_folder_is_one_line(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = train(f"hydra.run.dir={tmp_path}/file/run")
    assert done.status == 1
    assert done.err.startswith("error: Not a directory: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("path", ["/proc/ro", "/" + "x" * 300])
def test_runs_folder_that_cannot_be_made_is_one_line(train: Train, path: str) -> None:
    done = train(f"hydra.run.dir={path}/name/run")
    assert done.status == 1
    assert done.err.startswith("error: ")
    assert "; choose " in done.err
    assert done.err.count("\n") == 1


def test_password_in_an_argument_is_refused_before_it_is_written(train: Train) -> None:
    done = train("logger.tracking_uri=http://me:secret@127.0.0.1:1")
    assert done.status == 1
    assert "MLFLOW_TRACKING_PASSWORD" in done.err
    assert "secret" not in done.err + done.out
    assert not list(done.folder.iterdir())


def test_failed_jobs_of_a_multirun_are_named(train: Train) -> None:
    done = train("-m", "seed=0,1", "data=csv", "data.path=nowhere.csv", "logger=none")
    assert done.status == 1
    assert done.error.startswith("error: job 0 (seed=0 data=csv data.path=nowhere.csv")
    assert "nowhere.csv: " in done.error
    assert "Traceback" not in done.err
    # Hydra runs the other jobs all the same; each says what was wrong.
    assert "job 1 (seed=1 data=csv" in done.out
    assert not list(done.folder.iterdir())


@pytest.mark.slow
def test_jobs_of_a_multirun_lie_where_all_runs_are(train: Train, tmp_path: Path) -> None:
    cache = f"paths.cache={tmp_path}/cache"
    done = train("-m", "seed=0,1", "model=tfidf", "data.fetch.rows=200", "logger=none", cache)
    assert done.status == 0, done.err
    (name,) = (done.folder / "runs").iterdir()
    first, second = sorted(name.iterdir())
    assert name.name == "sample-tfidf"
    assert (first.name[:-1], first.name[-2:], second.name[-2:]) == (
        second.name[:-1],
        "_0",
        "_1",
    )
    assert (second / "bundle" / "manifest.json").is_file()


def test_a_multirun_does_not_resume(train: Train) -> None:
    done = train("-m", "seed=0,1", "resume=auto", "logger=none")
    assert done.status == 1
    assert "resume=auto continues one run: leave -m out" in done.error
    assert not list(done.folder.iterdir())


def interrupted(folder: Path, **options: object) -> dict[Path, bytes]:
    """A run that was interrupted, as far as a start looks at it."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / ".lock").touch()
    (folder / "run.json").write_text('{"state": "interrupted", "mlflow_run_id": "1"}')
    (folder / "config.yaml").write_text(yaml.safe_dump(options))
    return files(folder)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_resume_with_what_cannot_change_touches_nothing(train: Train, tmp_path: Path) -> None:
    options = {"seed": 0, "loader": {"batch_size": 8}, "name": "news"}
    before = interrupted(tmp_path / "runs" / "news" / "1", **options)
    done = train("name=news", "resume=auto", "loader.batch_size=16", "seed=3")
    assert done.status == 1
    assert done.err == (
        "error: a run cannot be resumed with seed=3 (before: 0), loader.batch_size=16 "
        "(before: 8): repeat its settings, or start without resume\n"
    )
    assert files(tmp_path) == before


def test_a_finished_run_that_is_resumed_stays_as_it_is(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "1"
    interrupted(folder)
    (folder / "run.json").write_text('{"state": "finished"}')
    before = files(tmp_path)
    done = train(f"resume={folder}")
    assert done.error.endswith("bundle; start a new run without resume")
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("loader.batch_size=5000", "training rows: set loader.batch_size=256 or less"),
        ("encoder.freeze_layers=9", "encoder.freeze_layers is 9: the encoder has 2 layers"),
    ],
)
def test_a_mistake_that_is_found_late_leaves_nothing(
    mistake: str, message: str, train: Train, tmp_path: Path
) -> None:
    store = tmp_path / "mlflow.db"
    done = train(
        "encoder=tiny",
        "features=headline",
        "data.fetch.rows=400",
        f"logger.tracking_uri=sqlite:///{store}",
        f"paths.cache={tmp_path}/cache",
        mistake,
    )
    assert done.status == 1
    assert message in done.error
    assert not list((done.folder / "runs").iterdir())
    with contextlib.closing(sqlite3.connect(store)) as connection:
        assert connection.execute("select count(*) from runs").fetchone() == (0,)
        # The store itself makes the default one.
        assert connection.execute("select count(*) from experiments").fetchone() == (1,)


def test_unknown_option_of_a_multirun_starts_no_job(train: Train) -> None:
    done = train("-m", "seed=0,1", "data.pth=x")
    assert done.status == 1
    assert done.error == "error: data.pth is not an option: did you mean data.path?"
    assert not list(done.folder.iterdir())


def test_full_error_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "data=cvs"],
        cwd=tmp_path,
        env=os.environ | {"HYDRA_FULL_ERROR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "MissingConfigException" in done.stderr


def _after(code: str, *, send: int | None = None) -> subprocess.CompletedProcess[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"from fakenews import cli\n{code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if send is not None:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(send)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(code, process.returncode, out, err)


WAIT = """
import time
def command():
    print("ready", flush=True)
    time.sleep(60)
cli.run(command)
"""


each_signal = pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)


@each_signal
def test_signal_gives_its_exit_status(number: int, status: int, message: str) -> None:
    done = _after(WAIT, send=number)
    assert done.returncode == status
    assert done.stderr == f"{message}\n"


@each_signal
def test_a_signal_stays_one_when_a_library_fails_to_tidy_up(
    number: int, status: int, message: str
) -> None:
    done = _after(
        "import time\n"
        "def command():\n"
        "    half = None\n"
        "    try:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "        finally:\n"
        "            half.close()\n"
        "    except Exception as error:\n"
        "        raise RuntimeError('library') from error\n"
        "cli.run(command)",
        send=number,
    )
    assert done.returncode == status
    assert done.stderr == f"{message}\n"


def test_a_signal_is_heard_when_it_comes_while_a_line_is_logged() -> None:
    done = _after(
        "import logging, os, signal, time\n"
        "class Slow(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        try:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            time.sleep(0.2)\n"
        "            print('logged', flush=True)\n"
        "        except Exception:\n"
        "            self.handleError(record)\n"
        "def command():\n"
        "    logging.getLogger().addHandler(Slow())\n"
        "    logging.getLogger().error('line')\n"
        "    time.sleep(60)\n"
        "cli.run(command)"
    )
    assert done.returncode == 143
    assert done.stdout == "logged\n"
    assert done.stderr == "terminated\n"


@each_signal
def test_a_signal_is_heard_when_it_comes_while_python_tidies_up(
    number: int, status: int, message: str
) -> None:
    done = _after(
        "import signal, time, weakref\n"
        "class Thing: pass\n"
        "def command():\n"
        "    thing = Thing()\n"
        f"    seen = weakref.ref(thing, lambda _: signal.raise_signal({number:d}))\n"
        "    del thing\n"
        "    print('went on', flush=True)\n"
        "    time.sleep(60)\n"
        "cli.run(command)"
    )
    assert done.returncode == status
    assert done.stdout == "went on\n"
    assert done.stderr == f"{message}\n"


def test_another_error_while_python_tidies_up_is_told() -> None:
    done = _after(
        "class Thing:\n"
        "    def __del__(self): raise ValueError('left')\n"
        "def command():\n"
        "    Thing()\n"
        "cli.run(command)"
    )
    assert done.returncode == 0
    assert "ValueError: left" in done.stderr


def test_a_bug_keeps_its_traceback() -> None:
    done = _after("def command():\n    [][0]\ncli.run(command)")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "IndexError" in done.stderr


def _wrapped(inner: Exception) -> RuntimeError:
    outer = RuntimeError("library")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DataError("a.csv: empty"), 1, "error: a.csv: empty"),
        (_wrapped(DataError("a.csv: empty")), 1, "error: a.csv: empty"),
        (ConfigError(["one", "two"]), 1, "error: several faults:\n  - one\n  - two"),
        (Interrupted("saved", status=75), 75, "saved"),
        (_wrapped(Interrupted("saved", status=75)), 75, "saved"),
        (OSError(28, "No space left on device", "/x"), 1, "error: No space left on device: /x"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error: Permission denied: /x; "),
    ],
)  # fmt: skip
def test_report_finds_the_users_error(
    error: Exception, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.report(error)
    assert end.value.code == status
    assert capsys.readouterr().err.startswith(message)


def test_report_leaves_a_bug_alone(capsys: pytest.CaptureFixture[str]) -> None:
    cli.report(KeyError("x"))
    cli.report(FileNotFoundError(2, "No such file", "x"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "error",
    [ConfigError(["one", "two"]), TrackingError("x"), Interrupted("saved", status=75)],
    ids=type,
)
def test_errors_travel_between_processes(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 as a launcher of jobs sends them
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
