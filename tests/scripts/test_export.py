"""`scripts/export.py` as a person runs it."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_run_becomes_an_archive(command: Command, tiny_run: Path, tmp_path: Path) -> None:
    done = command(
        "scripts/export.py",
        f"bundle={tiny_run}",
        "out=archives",
        "settings.unsure=0.3",
        fresh=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "archives").iterdir()
    assert f"archives/{path.name} made (" in done.stdout
    assert done.stderr == ""
    with zipfile.ZipFile(path) as archive:
        assert archive.read("handler.py") == (ROOT / "serve" / "handler.py").read_bytes()
        assert "unsure: 0.3" in archive.read("model-config.yaml").decode()
    assert [path.name for path in tmp_path.iterdir()] == ["archives"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of bundle=FOLDER, run=RUN_ID and registered=NAME@champion"),
        (["bundle=absent"], "absent is no bundle: there is no such folder"),
        (["bundel=x"], "bundel is not an option: did you mean bundle?"),
        (
            ["bundle=x", "engine=tensorrt"],
            "engine='tensorrt': it should be 'torch', 'onnx' or 'onnx-int8'",
        ),
        (
            ["run=abc", "tracking_uri=sqlite:///no.db"],
            "tracking_uri=sqlite:///no.db: there is no such file: correct the path",
        ),
        (
            ["registered=news@champion", "tracking_uri=sqlite:///no.db"],
            "tracking_uri=sqlite:///no.db: there is no such file: correct the path",
        ),
        (
            ["bundle=x", "tolerances.int8_ece_rise=2"],
            "tolerances.int8_ece_rise=2: it should be less than or equal to 1",
        ),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    command: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command("scripts/export.py", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []
