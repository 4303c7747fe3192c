"""What runs a bundle's model: inputs in, logits out.

Shapes: B batch, T tokens, F tabular features, H embedding, C classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fakenews.errors import ConfigError
from fakenews.models.networks import Network

if TYPE_CHECKING:
    # scikit-learn takes a second to import, and only the baseline needs it.
    from fakenews.models.tfidf import TfidfClassifier


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
    """Runs a model on one batch."""

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

    def __init__(self, network: Network, *, device: str = "cpu") -> None:
        try:
            self.network = network.eval().to(device)
        # torch raises either, for a name it does not know and for a device it lacks.
        except (RuntimeError, AssertionError) as error:
            reason = next(iter(str(error).splitlines()), repr(error))
            raise ConfigError(f"device={device} cannot be used: {reason}") from error
        self._device = device

    @torch.inference_mode()
    def run(self, inputs: Inputs) -> Outputs:
        """Logits and embeddings of a batch."""
        tensors = [
            torch.from_numpy(array).to(self._device, non_blocking=True)
            for array in (inputs.input_ids, inputs.attention_mask, inputs.tabular)
        ]
        embeddings_BH = self.network.embed(*tensors)
        logits_BC = self.network.classify(embeddings_BH)
        return Outputs(logits_BC.double().cpu().numpy(), embeddings_BH.float().cpu().numpy())


class TfidfEngine:
    """Runs the TF-IDF baseline, which reads the texts themselves.

    Args:
        classifier: Fitted.
    """

    def __init__(self, classifier: "TfidfClassifier") -> None:
        self.classifier = classifier

    def run(self, inputs: Inputs) -> Outputs:
        """Logits of a batch; there are no embeddings."""
        logits = self.classifier.logits(inputs.texts)
        return Outputs(logits, np.empty((len(logits), 0), dtype=np.float32))
