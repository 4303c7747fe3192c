"""What runs a bundle's model: texts and features in, logits out.

In two steps, for reading texts takes nearly all of the time and needs no features: these are
made meanwhile.

Shapes: B batch, T tokens, D text dim, F tabular features, H embedding, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fakenews.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

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


class Batch(NamedTuple):
    """Texts; tokens are [B, 0] for a model that reads none."""

    texts: Sequence[str]
    input_ids: NDArray[np.int64]  # [B, T]
    attention_mask: NDArray[np.int64]  # [B, T]


class Outputs(NamedTuple):
    """What a model says of texts."""

    logits: NDArray[np.float64]  # [B, C]
    embeddings: NDArray[np.float32]  # [B, H], H = 0 for a model without any


class Engine(Protocol):
    """Runs a model.

    Attributes:
        overhead: What a batch costs beside its tokens, in tokens.
    """

    overhead: int

    def encode(self, batch: Batch) -> NDArray[Any]:
        """A vector of each text, [B, D]; D is 0 for a model that reads none."""
        ...

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        """Logits and embeddings from vectors of texts and their features, [B, F]."""
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

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """A vector of each text."""
        import torch

        with torch.inference_mode():
            ids_BT, mask_BT = self._tensors(batch.input_ids, batch.attention_mask)
            vectors_BD = self.network.pooled(ids_BT, mask_BT).float().cpu()
        return np.asarray(vectors_BD)

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        """Logits and embeddings from vectors of texts and their features."""
        import torch

        with torch.inference_mode():
            embeddings_BH = self.network.embed(*self._tensors(vectors, tabular))
            logits_BC = self.network.classify(embeddings_BH)
        return Outputs(logits_BC.double().cpu().numpy(), embeddings_BH.float().cpu().numpy())

    def _tensors(self, *arrays: NDArray[Any]) -> "list[Tensor]":
        import torch

        return [torch.from_numpy(array).to(self._device, non_blocking=True) for array in arrays]


class OnnxEngine:
    """Runs a network with ONNX Runtime, on a CPU.

    Args:
        parts: The network as ONNX. `encoder` (not of a network that reads no text): from
            `input_ids` and `attention_mask` to `vectors`. `head`: from `vectors` and
            `tabular`, as far as it reads them, to `logits` and `embeddings`.
        threads: With which it computes; None: those of torch.

    Raises:
        BundleError: It is no such network.
        ConfigError: ONNX Runtime is not installed.
    """

    overhead = _ONNX_OVERHEAD

    def __init__(self, parts: Mapping[str, bytes], *, threads: int | None = None) -> None:
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
        self._sessions = {}
        for name, model in parts.items():
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    model,
                    options,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=_SLOW_FUSIONS,
                )
            except Exception as error:  # one of its own, of no common base
                reason = next(iter(str(error).splitlines()), repr(error))
                raise BundleError(f"engine/{name}.onnx cannot be loaded: {reason}") from error
        self._head_reads = [node.name for node in self._sessions["head"].get_inputs()]

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """A vector of each text."""
        if "encoder" not in self._sessions:
            return np.empty((len(batch.input_ids), 0), dtype=np.float32)
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        vectors: NDArray[np.float32] = self._sessions["encoder"].run(["vectors"], given)[0]
        return vectors

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        """Logits and embeddings from vectors of texts and their features."""
        given = {"vectors": vectors, "tabular": tabular}
        logits, embeddings = self._sessions["head"].run(
            ["logits", "embeddings"], {name: given[name] for name in self._head_reads}
        )
        return Outputs(logits.astype(np.float64), embeddings.astype(np.float32))


class TfidfEngine:
    """Runs the TF-IDF baseline, which reads the texts themselves.

    Args:
        classifier: Fitted.
    """

    overhead = _UNCUT  # there are no tokens, and nothing is padded

    def __init__(self, classifier: "TfidfClassifier") -> None:
        self.classifier = classifier

    def encode(self, batch: Batch) -> NDArray[np.float64]:
        """The logits already: it reads nothing but texts."""
        return self.classifier.logits(batch.texts)

    def classify(self, vectors: NDArray[Any], tabular: NDArray[np.float32]) -> Outputs:
        """The logits; there are no embeddings."""
        del tabular
        return Outputs(vectors, np.empty((len(vectors), 0), dtype=np.float32))


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
        parts = {"encoder", "head"} if content.model.get("encoder") else {"head"}
        if missing := sorted(parts - content.onnx.keys()):
            raise BundleError(
                f"engine/{missing[0]}.onnx is missing, which engine={wanted} needs: "
                "export it again"
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
