"""The command `scripts/export.py`: a bundle becomes an archive that TorchServe serves."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.table import Table

from fakenews.bundle import MANIFEST, BundleContent, find_bundle, read_bundle
from fakenews.config import check, option_faults
from fakenews.engines import EngineName
from fakenews.errors import ConfigError
from fakenews.predictor import Predictor
from fakenews.serving.archive import Made, ModelConfig, write_archive
from fakenews.serving.golden import golden_predictions
from fakenews.serving.optimise import Comparison, Tolerances, optimise
from fakenews.terminal import show
from fakenews.tracking.artifacts import download_bundle, run_of_model
from fakenews.tracking.folder import latest_finished

log = logging.getLogger(__name__)

# By how much a served probability may differ from the exported one. Where a last bit decides
# how an activation is rounded, CPUs of several kinds differ more: 0.003 was seen.
_ATOL: dict[EngineName, float] = {"torch": 1e-4, "onnx": 1e-4, "onnx-int8": 5e-3}


class ArchiveOptions(TypedDict):
    """The options of `conf/export/` that are of no part."""

    engine: EngineName
    name: str
    out: str
    handler: str


class ExportOptions(ArchiveOptions):
    """The options of `conf/export.yaml` that are of no part."""

    bundle: str | None
    runs: str
    run: str | int | None
    registered: str | None
    tracking_uri: str


def export_rules(cfg: DictConfig) -> Iterator[str]:
    """What is wrong with the options of `conf/export.yaml` that are of no part."""
    yield from option_faults(cfg, ExportOptions)


def export(cfg: DictConfig) -> Made:
    """Do what `conf/export.yaml` describes.

    Raises:
        ConfigError: An option is wrong.
        FakeNewsError: See `export_bundle`.
    """
    check(cfg, rules=export_rules)
    return export_bundle(
        **{key: cfg[key] for key in ExportOptions.__annotations__},
        tolerances=instantiate(cfg.tolerances),
        config=instantiate(cfg.config),
        settings=instantiate(cfg.settings, _convert_="all"),
    )


def export_bundle(
    *,
    bundle: str | None = None,
    runs: str = "runs",
    run: str | int | None = None,
    registered: str | None = None,
    tracking_uri: str,
    engine: EngineName = "torch",
    tolerances: Tolerances,
    name: str,
    out: str,
    handler: str,
    config: ModelConfig,
    settings: Callable[..., Any],
) -> Made:
    """Make the archive of a bundle.

    Args:
        bundle: Folder of a bundle, or of a run; `latest` for the newest of `runs`.
        runs: Folder of run folders.
        run: Or the MLflow id of a run.
        registered: Or a registered model, NAME@ALIAS or NAME/VERSION.
        tracking_uri: Of the MLflow store of these.
        engine: What runs the network.
        tolerances: How far its answers may be from those of torch.
        name: Of the model that is served.
        out: Folder of archives.
        handler: Module that TorchServe runs.
        config: How TorchServe runs it.
        settings: `ServedModel.load` with the arguments that the handler gives it.

    Raises:
        ConfigError: Not one of `bundle`, `run` and `registered` is given, the engine does not
            go with the model, or there is no such handler.
        BundleError: The bundle is damaged, does not predict, or cannot be checked.
        ServingError: The engine is too far from torch, or the archive cannot be written.
        TrackingError: The MLflow store cannot be used, or has no such bundle.
    """
    given = {"bundle": bundle, "run": run, "registered": registered}
    if sum(value is not None for value in given.values()) != 1:
        raise ConfigError("give one of bundle=FOLDER, run=RUN_ID and registered=NAME@champion")
    if not Path(handler).is_file():
        raise ConfigError(f"handler={handler}: there is no such file")
    if bundle == "latest":
        bundle = str(latest_finished(Path(runs)))
    with _folder(bundle, run, registered, tracking_uri) as folder:
        content = read_bundle(folder)
        original = json.loads((find_bundle(folder) / MANIFEST).read_text("utf-8"))["sha256"]
    content, comparison = optimise(content, engine, tolerances=tolerances)
    if comparison is not None:
        show(comparison_table(comparison, content))
    content = dataclasses.replace(
        content,
        golden=golden_predictions(
            Predictor.from_content(content, threads=1), atol=_ATOL[engine]
        ),
        provenance={**content.provenance, "exported_from": original},
    )
    made = write_archive(
        content,
        name=name,
        config=config.to_yaml(dict(getattr(settings, "keywords", {}))),
        handler=Path(handler),
        out=Path(out),
    )
    size = made.path.stat().st_size / 1e6
    said = "made" if made.new else "was there already, the same"
    log.info("%s %s (%.0f MB)", made.path, said, size)
    log.info("deploy it: python scripts/deploy.py action=deploy archive=%s", made.path)
    return made


def comparison_table(found: Comparison, content: BundleContent) -> Table:
    """An exported engine beside torch, for people."""
    name = (content.engine or {}).get("name", "")
    weights = sum(array.nbytes for array in content.weights.values())
    exported = sum(map(len, content.onnx.values()))
    sizes = [f"{size / 1e6:,.0f}" for size in (weights, exported)]
    table = Table(f"{found.rows:,} rows", "torch", name, "difference")
    for label, (before, after) in (
        ("Average precision", found.average_precision),
        ("Calibration error (ECE)", found.ece),
    ):
        change = round(after - before, 4) + 0.0  # never -0
        table.add_row(label, f"{before:.4f}", f"{after:.4f}", f"{change:+.4f}")
    table.add_row("Probabilities, mean", "", "", f"{found.mean_difference:.2g}")
    table.add_row("Probabilities, most", "", "", f"{found.max_difference:.2g}")
    table.add_row("Decided otherwise", "", "", f"{found.decided_otherwise:.2%}")
    speeds = [f"{speed:,.0f}" for speed in found.speed]
    table.add_row("Rows a second", *speeds, f"x {found.speed[1] / found.speed[0]:.2f}")
    table.add_row("Megabytes", *sizes, "")
    return table


@contextmanager
def _folder(
    bundle: str | None, run: str | int | None, registered: str | None, tracking_uri: str
) -> Iterator[Path]:
    """The folder of the bundle, downloaded if it is in MLflow's store."""
    if bundle is not None:
        yield Path(bundle)
        return
    if registered is not None:
        run = run_of_model(uri=tracking_uri, model=registered)
    with tempfile.TemporaryDirectory(prefix="fakenews-") as temporary:
        yield download_bundle(uri=tracking_uri, run=str(run), folder=Path(temporary))
