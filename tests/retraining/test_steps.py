"""What steps make of what others have left."""

import json
from pathlib import Path

import pytest

from fakenews.retraining.steps import like_champion


@pytest.mark.parametrize(
    ("champion", "changes", "expected"),
    [
        (["model=text", "optimizer.lr=1e-4"], [], ["model=text", "optimizer.lr=1e-4"]),
        (["model=text"], ["model=tabular"], ["model=tabular"]),
        (["++trainer.x=1"], ["trainer.x=2"], ["trainer.x=2"]),
        # The successor has data, a name and a place of its own.
        (["data=csv", "data.path=a", "name=n", "paths.runs=r", "hydra.run.dir=d"], [], []),
        (["logger=none", "resume=auto", "seed=3"], [], ["seed=3"]),
        (["data.normalise=true"], ["data.normalise=false"], ["data.normalise=false"]),
    ],
)
def test_a_challenger_is_trained_like_the_champion(
    champion: list[str], changes: list[str], expected: list[str], tmp_path: Path
) -> None:
    content = {"provenance": {"overrides": champion}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert like_champion(tmp_path, changes) == expected


def test_a_champion_of_before_says_nothing_of_its_options(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"provenance": {}}))
    assert like_champion(tmp_path, ["model=text"]) == ["model=text"]
