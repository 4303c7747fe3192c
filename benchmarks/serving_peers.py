"""Servers of others, each started and asked in its own manner."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from serving_load import post
from serving_process import HOST, ServerError, free_port
from serving_server import HERE, Rows, Server, python_path, run


class LitServe(Server):
    """LitServe, with its batching."""

    title = "LitServe, batches of 64"

    def start(self) -> None:
        """See `Server`."""
        setup = self.setup
        self.launch(
            [
                *(sys.executable, str(HERE / "serving_litserve.py")),
                *(str(self.bundle), self.way.engine, str(self.port)),
                *(str(setup.threads), str(setup.workers)),
            ],
            ready="/health",
        )


class BentoML(Server):
    """BentoML, with its adaptive batching, from an environment of its own."""

    title = "BentoML, adaptive batches of 64"
    lists = True

    def start(self) -> None:
        """See `Server`."""
        python = self.setup.bentoml_python
        if python is None:
            raise ServerError("bentoml needs --bentoml-python")
        self.launch(
            [
                *(python, "-m", "bentoml", "serve", "serving_bentoml:Headlines"),
                *("--host", HOST, "--port", str(self.port), "--working-dir", str(HERE)),
            ],
            ready="/readyz",
            environment={
                "BENTOML_HOME": str(self.folder),
                "BENTOML_DO_NOT_TRACK": "True",
                # Not the packages of this environment.
                "PYTHONPATH": os.pathsep.join(python_path() or [str(HERE.parent / "src")]),
            },
        )

    def single(self, text: str) -> str:
        """See `Server`."""
        return self.many([text])

    def many(self, texts: Sequence[str]) -> str:
        """See `Server`."""
        return post("/predict", json.dumps({"texts": texts}))

    def read(self, body: str) -> Rows:
        """See `Server`."""
        return self.rows(json.loads(body))


class MLflow(Server):
    """MLflow's scoring server."""

    title = "MLflow's scoring server"
    lists = True

    def start(self) -> None:
        """See `Server`."""
        model = self.folder / "model"
        run(
            [
                *(sys.executable, str(HERE / "serving_mlflow.py")),
                *(str(self.bundle), str(model)),
            ],
            environment=self.environment,
        )
        self.launch(
            [
                *(sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model)),
                *("--env-manager", "local", "--host", HOST, "--port", str(self.port)),
                *("--workers", str(self.setup.workers)),
            ],
            ready="/ping",
        )

    def single(self, text: str) -> str:
        """See `Server`."""
        return self.many([text])

    def many(self, texts: Sequence[str]) -> str:
        """See `Server`."""
        return post("/invocations", json.dumps({"inputs": texts}))

    def read(self, body: str) -> Rows:
        """See `Server`."""
        return self.rows(json.loads(body)["predictions"])


class Pipeline(Server):
    """FastAPI with a transformers pipeline: another head, and no tabular features."""

    title = "FastAPI with a transformers pipeline"
    tabular = False
    engines = ("torch",)

    def start(self) -> None:
        """See `Server`."""
        self._script("make", self.bundle)
        self.launch(
            [*self._command("serve"), str(self.port), str(self.setup.threads)],
            ready="/docs",
        )

    def expected(self, texts: Sequence[str]) -> Rows:
        """What it has to answer, found without a pipeline."""
        path = self.folder / "texts.json"
        path.write_text(json.dumps(texts), encoding="utf-8")
        rows: Rows = json.loads(self._script("expect", path).splitlines()[-1])
        return rows

    def _command(self, what: str) -> list[str]:
        script = HERE / "serving_pipeline.py"
        return [sys.executable, str(script), what, str(self.folder / "model")]

    def _script(self, what: str, argument: Path) -> str:
        return run([*self._command(what), str(argument)], environment=self.environment)


class Example(Server):
    """TorchServe with a handler as in its Hugging Face example."""

    title = "TorchServe, its Hugging Face example's way"
    engines = ("torch",)

    def start(self) -> None:
        """See `Server`."""
        store = self.folder / "model_store"
        store.mkdir()
        (self.folder / "tmp").mkdir()
        run(
            [
                *(sys.executable, "-m", "model_archiver.model_packaging"),
                *("--model-name", "example", "--version", "1.0", "--force"),
                *("--handler", str(HERE / "serving_example_handler.py")),
                *("--export-path", str(store)),
            ],
            environment=self.environment,
        )
        ports = {name: free_port() for name in ("management", "metrics")}
        grpc = {name: free_port() for name in ("inference", "management")}
        lines = [
            f"inference_address=http://{HOST}:{self.port}",
            *(f"{name}_address=http://{HOST}:{port}" for name, port in ports.items()),
            *(f"grpc_{name}_port={port}" for name, port in grpc.items()),
            f"default_workers_per_model={self.setup.workers}",
            "disable_token_authorization=true",
        ]
        settings = self.folder / "config.properties"
        settings.write_text("\n".join(lines) + "\n", encoding="ascii")
        self.launch(
            [
                *(sys.executable, "-m", "ts.model_server", "--start", "--foreground", "--ncs"),
                *("--model-store", str(store), "--models", "example=example.mar"),
                *("--ts-config", str(settings)),
            ],
            ready="/ping",
            environment={
                # A file there names the process of the TorchServe that runs.
                "TMPDIR": str(self.folder / "tmp"),
                "TEMP": str(self.folder / "tmp"),
            },
        )

    def single(self, text: str) -> str:
        """See `Server`."""
        return post("/predictions/example", text, content_type="text/plain; charset=utf-8")
