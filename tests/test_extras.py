"""Each extra brings what its commands import: nothing is there only because of another one."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]

# Imports modules where some packages are as if they were not installed.
IMPORT = """
import json, sys
modules, absent = json.load(sys.stdin)
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in absent:
            return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
for module in modules:
    __import__(module)
"""


def brought(extras: Sequence[str]) -> set[str]:
    """Names of all distributions that come with extras, those of others included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    left = [Requirement(line) for line in wanted]
    # With the extra by which it is asked for.
    found: set[tuple[str, str]] = set()
    while left:
        requirement = left.pop()
        for extra in ("", *requirement.extras):
            known = (canonicalize_name(requirement.name), extra)
            if known in found:
                continue
            found.add(known)
            for line in distribution(requirement.name).requires or ():
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    left.append(needed)
    return {name for name, _ in found}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extras", "modules"),
    [
        ([], ["fakenews.predictor", "fakenews.inference.predict"]),
        (
            ["train"],
            [
                *(
                    "fakenews.training.job",
                    "fakenews.inference.evaluate",
                    "fakenews.preparation.job",
                    "fakenews.tuning.job",
                ),
                *("fakenews.cluster.slurm", "fakenews.cluster.kubernetes"),
            ],
        ),
        (["serve"], ["fakenews.serving.model", "fakenews.serving.explain"]),
        (["train", "serve"], ["fakenews.serving.export"]),
        (["web"], ["fakenews.serving.gateway.app", "fakenews.serving.gateway.page"]),
        (
            ["monitor"],
            [
                "fakenews.monitoring.job",
                "fakenews.monitoring.alerts",
                "fakenews.monitoring.aws",
                "pandera.errors",
            ],
        ),
        (
            ["train", "serve", "web", "monitor", "retrain"],
            [
                "fakenews.retraining.job",
                "fakenews.retraining.gate",
                "fakenews.retraining.promote",
                "fakenews.demo.job",
            ],
        ),
    ],
    ids=lambda given: "+".join(given) or "core",
)
def test_an_extra_brings_what_its_commands_import(
    extras: Sequence[str], modules: Sequence[str]
) -> None:
    here = brought(extras)
    absent = [
        package
        for package, distributions in packages_distributions().items()
        if package != "fakenews" and not {*map(canonicalize_name, distributions)} & here
    ]
    assert "pytest" in absent
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        input=json.dumps([modules, absent]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
