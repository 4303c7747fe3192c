"""What runs a bundle's model: inputs in, logits out.

Shapes: B batch, T tokens, F tabular features, H embedding, C classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fakenews.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from fakenews.bundle import BundleContent

    # torch and scikit-learn take a second each to import, and only their engines need them.
    from fakenews.models.networks import Network
    from fakenews.models.tfidf import TfidfClassifier

EngineName = Literal["torch", "onnx", "onnx-int8"]
"""What can run a bundle; `torch` is the model's own way, which every bundle has."""


# ONNX Runtime's fused kernel for CPUs takes longer than what it replaces: without it 6% more
# headlines a second in float, 14% in integers.
_SLOW_FUSIONS = ["SkipLayerNormFusion"]

# Of the encoder MiniLM on two cores, from the time of batches of 1 to 64 rows of 8 to 128
# tokens: 7 to 10 ms and 0.1 ms a token with PyTorch; 1.8 ms and 0.044 ms with ONNX Runtime in
# integers. Where batches shall be as large as may be, as on a GPU, which has cores to spare,
# one costs more than all tokens.
_TORCH_OVERHEAD = 80
_ONNX_OVERHEAD = 40
_UNCUT = 1 << 20


class Inputs(NamedTuple):
    """A batch; what the model does not read is [B, 0]."""

    texts: Sequence[str]
    input_ids: NDArray[np.int64]  # [B, T]
    attention_mask: NDArray[np.int64]  # [B, T]
    tabular: NDArray[np.float32]  # [B, F]


class Outputs(NamedTuple):
    """What a model says of a batch."""

    logits: NDArray[np.float64]  # [B, C]
    embeddings: NDArray[np.float32]  # [B, H], H = 0 for a model without any


class Engine(Protocol):
    """Runs a model on one batch.

    Attributes:
        overhead: What a batch costs beside its tokens, in tokens.
    """

    overhead: int

    def run(self, inputs: Inputs) -> Outputs:
        """Logits and embeddings of a batch."""
        ...


class TorchEngine:
    """Runs a network with PyTorch.

    Args:
        network: Put into evaluation mode and moved to `device`.
        device: As torch names it.

    Raises:
        ConfigError: There is no such device.
    """

    def __init__(self, network: "Network", *, device: str = "cpu") -> None:
        try:
            self.network = network.eval().to(device)
        # torch raises either, for a name it does not know and for a device it lacks.
        except (RuntimeError, AssertionError) as error:
            reason = next(iter(str(error).splitlines()), repr(error))
            raise ConfigError(f"device={device} cannot be used: {reason}") from error
        self._device = device
        self.overhead = _TORCH_OVERHEAD if device == "cpu" else _UNCUT

    def run(self, inputs: Inputs) -> Outputs:
        """Logits and embeddings of a batch."""
        import torch

        with torch.inference_mode():
            tensors = [
                torch.from_numpy(array).to(self._device, non_blocking=True)
                for array in (inputs.input_ids, inputs.attention_mask, inputs.tabular)
            ]
            embeddings_BH = self.network.embed(*tensors)
            logits_BC = self.network.classify(embeddings_BH)
        return Outputs(logits_BC.double().cpu().numpy(), embeddings_BH.float().cpu().numpy())


class OnnxEngine:
    """Runs a network with ONNX Runtime, on a CPU.

    Args:
        model: The network as ONNX: inputs `input_ids`, `attention_mask` and `tabular`, as far
            as it reads them; outputs `logits` and `embeddings`.
        threads: With which it computes; None: those of torch.

    Raises:
        BundleError: It is no such network.
        ConfigError: ONNX Runtime is not installed.
    """

    overhead = _ONNX_OVERHEAD

    def __init__(self, model: bytes, *, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ConfigError(
                "this engine needs ONNX Runtime: pip install onnxruntime, or use engine=torch"
            ) from error
        if threads is None:
            import torch

            threads = torch.get_num_threads()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin between two batches take the cores of what serves.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                model,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=_SLOW_FUSIONS,
            )
        except Exception as error:  # one of its own, of no common base
            reason = next(iter(str(error).splitlines()), repr(error))
            raise BundleError(f"engine/model.onnx cannot be loaded: {reason}") from error
        self._names = [node.name for node in self._session.get_inputs()]

    def run(self, inputs: Inputs) -> Outputs:
        """Logits and embeddings of a batch."""
        given = {name: getattr(inputs, name) for name in self._names}
        logits, embeddings = self._session.run(["logits", "embeddings"], given)
        return Outputs(logits.astype(np.float64), embeddings.astype(np.float32))


class TfidfEngine:
    """Runs the TF-IDF baseline, which reads the texts themselves.

    Args:
        classifier: Fitted.
    """

    overhead = _UNCUT  # there are no tokens, and nothing is padded

    def __init__(self, classifier: "TfidfClassifier") -> None:
        self.classifier = classifier

    def run(self, inputs: Inputs) -> Outputs:
        """Logits of a batch; there are no embeddings."""
        logits = self.classifier.logits(inputs.texts)
        return Outputs(logits, np.empty((len(logits), 0), dtype=np.float32))


def make_engine(
    content: "BundleContent", name: EngineName | None, *, device: str, threads: int | None
) -> Engine:
    """The engine of a bundle.

    Args:
        content: Of the bundle.
        name: None: what the bundle was exported for, where `device` is a CPU, else torch.
        device: As torch names it.
        threads: Of ONNX Runtime; None: as many as torch has.

    Raises:
        BundleError: The bundle has no such engine, or a damaged one.
        ConfigError: There is no such engine or device.
        RuntimeError: The weights are of another architecture.
    """
    exported: str = (content.engine or {}).get("name", "torch")
    wanted = name or (exported if device == "cpu" else "torch")
    if wanted not in (known := get_args(EngineName)):
        raise ConfigError(f"engine={wanted}: choose {', '.join(known[:-1])} or {known[-1]}")
    if wanted not in ("torch", exported):
        raise BundleError(f"it has no engine {wanted}: export it with engine={wanted}")
    if wanted != "torch":
        if device != "cpu":
            raise ConfigError(f"engine={wanted} is for device=cpu: choose engine=torch")
        if content.onnx is None:
            raise BundleError(
                f"engine/model.onnx is missing, which engine.json says is {wanted}"
            )
        return OnnxEngine(content.onnx, threads=threads)
    if content.model["network"] == "tfidf":
        from fakenews.models.tfidf import TfidfClassifier

        return TfidfEngine(TfidfClassifier.build(content.model, dict(content.weights)))
    import torch

    from fakenews.models.networks import build

    network = build(content.model)
    weights = {name: torch.from_numpy(array) for name, array in content.weights.items()}
    network.load_state_dict(weights)
    return TorchEngine(network, device=device)
