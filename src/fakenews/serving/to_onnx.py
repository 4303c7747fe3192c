"""A network as ONNX: the same bytes for the same network.

Shapes: B batch, T tokens, F tabular features, H embedding, C classes.
"""

import logging
import warnings

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


class _Engine(nn.Module):
    """What an engine answers: logits [B, C] and embeddings [B, H]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, tabular: Tensor
    ) -> tuple[Tensor, Tensor]:
        embeddings_BH = self.network.embed(input_ids, attention_mask, tabular)
        return self.network.classify(embeddings_BH), embeddings_BH


def to_onnx(network: Network) -> bytes:
    """Export a network, for any number of texts and of tokens.

    Args:
        network: Put into evaluation mode, and its attention replaced: use it no more.

    Returns:
        A model with the inputs `input_ids`, `attention_mask` and `tabular`, and the outputs
        `logits` and `embeddings`.

    Raises:
        ServingError: It has operations that cannot be exported.
    """
    network.eval()
    tokens = _TOKENS if network.encoder is not None else 0
    if network.encoder is not None:
        use_plain_attention(network.encoder.backbone)
    features = network.arguments["tabular_dim"] if network.reads_tabular else 0
    batch = torch.export.Dim("batch")
    sizes = {0: batch, 1: torch.export.Dim("tokens")} if tokens else {0: batch}
    example = (
        torch.ones(_ROWS, tokens, dtype=torch.int64),
        torch.ones(_ROWS, tokens, dtype=torch.int64),
        torch.zeros(_ROWS, features),
    )
    # It warns of packages that it could use, and of its own use of torch.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Engine(network),
                example,
                input_names=["input_ids", "attention_mask", "tabular"],
                output_names=["logits", "embeddings"],
                dynamic_shapes=(sizes, sizes, {0: batch}),
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
