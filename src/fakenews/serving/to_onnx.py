"""A network as ONNX: the same bytes for the same network.

Shapes: B batch, H embedding, C classes.
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from fakenews.errors import ServingError
from fakenews.models.attention import use_plain_attention
from fakenews.models.networks import Network

# Has an operator for GELU, and is older than any ONNX Runtime that serves.
_OPSET = 20
# Of the example: not 0 or 1, which are no examples of any number.
_ROWS, _TOKENS = 2, 3

_Sizes = dict[int, Any]


class _Head(nn.Module):
    """Logits [B, C] and embeddings [B, H] from vectors of texts and their features."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, vectors: Tensor, tabular: Tensor) -> tuple[Tensor, Tensor]:
        embeddings_BH = self.network.embed(vectors, tabular)
        return self.network.classify(embeddings_BH), embeddings_BH


def to_onnx(network: Network) -> dict[str, bytes]:
    """Export a network, for any number of texts and of tokens.

    Args:
        network: Put into evaluation mode, and its attention replaced: use it no more.

    Returns:
        Its parts, as `engines.OnnxEngine` reads them.

    Raises:
        ServingError: It has operations that cannot be exported.
    """
    network.eval()
    # They tell each step, warn of packages that they could use, and of their use of torch.
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    batch = {0: torch.export.Dim("batch")}
    parts = {}
    if network.encoder is not None:
        use_plain_attention(network.encoder.backbone)
        tokens = torch.ones(_ROWS, _TOKENS, dtype=torch.int64)
        sizes = batch | {1: torch.export.Dim("tokens")}
        parts["encoder"] = _export(
            network.encoder,
            {"input_ids": (tokens, sizes), "attention_mask": (tokens.clone(), sizes)},
            outputs=["vectors"],
        )
    dim = 0 if network.encoder is None else network.encoder.dim
    features = network.arguments["tabular_dim"] if network.reads_tabular else 0
    parts["head"] = _export(
        _Head(network),
        {
            "vectors": (torch.zeros(_ROWS, dim), batch),
            "tabular": (torch.zeros(_ROWS, features), batch),
        },
        outputs=["logits", "embeddings"],
    )
    return parts


def _export(
    module: nn.Module, inputs: Mapping[str, tuple[Tensor, _Sizes]], *, outputs: Sequence[str]
) -> bytes:
    """A module as ONNX; of each input an example, and which of its sizes may be others."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(example for example, _ in inputs.values()),
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=tuple(sizes for _, sizes in inputs.values()),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # of any library that has a part in it
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise ServingError(
            f"the network cannot be exported as ONNX ({reason}): choose engine=torch"
        ) from error
    assert program is not None  # noqa: S101 it is with dynamo
    model = program.model_proto
    _forget_sources(model)
    return bytes(model.SerializeToString(deterministic=True))


def _forget_sources(model: onnx.ModelProto) -> None:
    """Remove what tells of files of this machine: every node has the stack that made it."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
