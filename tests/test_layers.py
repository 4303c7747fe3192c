"""A stage imports earlier stages and never later ones; what predicts needs no training."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SRC / "fakenews"

# In the order in which data flows. Modules of one line may import each other.
ORDER = [
    ("errors", "bounds", "holding", "launch", "provenance", "terminal"),
    ("data",),
    ("features",),
    ("evaluation",),
    ("models",),
    ("preparation",),
    ("engines", "bundle", "predictor"),
    ("inference",),
    ("tracking",),
    ("serving",),
    ("monitoring",),
    ("tuning",),
    ("training",),
    ("cluster",),
    ("retraining",),
    ("demo",),
]
LEVEL = {stage: level for level, stages in enumerate(ORDER) for stage in stages}

# Beside the stages: what every command shares.
APART = {
    "config": {"errors", "bounds", "launch", "tracking"},
    "rules": {"config", "bounds"},
    "cli": {"config", "errors", "launch", "tracking"},
}

# Stages that are whole commands: they check their configuration.
JOBS = (
    "preparation",
    "serving",
    "monitoring",
    "tuning",
    "training",
    "cluster",
    "retraining",
)

# What a server has that only predicts.
PREDICTS = [
    "errors.py",
    "bounds.py",
    "predictor.py",
    "bundle.py",
    "engines.py",
    "data/cleaning.py",
    "evaluation/calibration.py",
    "evaluation/metrics.py",
    *(f"features/{path.name}" for path in sorted(PACKAGE.glob("features/*.py"))),
    *(
        f"models/{path.name}"
        for path in sorted(PACKAGE.glob("models/*.py"))
        if path.name not in ("classifier.py", "schedules.py")
    ),
    "serving/columns.py",
    "serving/details.py",
    "serving/explain.py",
    "serving/items.py",
    "serving/kserve.py",
    "serving/model.py",
    "serving/protocol.py",
    "serving/threads.py",
]
TRAINING_LIBRARIES = {
    "lightning",
    "hydra",
    "mlflow",
    "optuna",
    "omegaconf",
    "datasketch",
    "duckdb",
    "pandera",
    "fsspec",
    "rich",
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _stage(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _stages_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in _imports(path)]
    found = {name[1] for name in parts if name[0] == "fakenews" and len(name) > 1}
    return found - {"__version__"}


def test_every_stage_has_its_place() -> None:
    found = {_stage(path) for path in MODULES} - {"__init__"}
    assert found == LEVEL.keys() | APART.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_no_later_stage(path: Path) -> None:
    stage, imported = _stage(path), _stages_imported(path)
    if stage in APART:
        assert imported <= APART[stage]
    elif stage != "__init__":
        if stage in JOBS:
            imported -= {"config", "rules", "cli"}
        assert all(LEVEL[name] <= LEVEL[stage] for name in imported if name != stage), imported


@pytest.mark.parametrize("name", PREDICTS)
def test_what_predicts_imports_no_training_library(name: str) -> None:
    top_level = {imported.partition(".")[0] for imported in _imports(PACKAGE / name)}
    assert not top_level & TRAINING_LIBRARIES
    stages = _stages_imported(PACKAGE / name)
    assert not stages & {"tracking", "training", "config", "cli"}


def test_what_predicts_imports_only_what_predicts() -> None:
    allowed = {name.removesuffix(".py").replace("/", ".") for name in PREDICTS}
    packages = {name.partition(".")[0] for name in allowed if "." in name}
    for name in PREDICTS:
        for imported in _imports(PACKAGE / name):
            root, _, rest = imported.partition(".")
            if root == "fakenews" and rest.partition(".")[0] in packages:
                assert ".".join(rest.split(".")[:2]) in allowed, f"{name} imports {imported}"


def test_what_starts_a_command_imports_nothing_heavy_at_its_top() -> None:
    heavy = {"torch", "lightning", "mlflow", "pandas", "numpy", "transformers", "pydantic"}
    for name in (
        "config.py",
        "rules.py",
        "cli.py",
        "errors.py",
        "bounds.py",
        "tracking/__init__.py",
    ):
        tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
        top = ast.Module(
            [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], []
        )
        names = {
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in top.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert not {imported.partition(".")[0] for imported in names} & heavy, name
