"""A transformer in 8-bit integers, whose answer to a text depends on that text alone.

Activations are quantised in steps that fit what was seen of example rows. In ONNX Runtime's
dynamic quantisation the steps follow from the batch instead: there the probability of a
headline moved by up to 0.1 with its neighbours.

The accuracy that this costs is won back before anything runs: activations and weights share
what is hard to quantise of a channel (SmoothQuant, Xiao et al., ICML 2023), and what the
rounded weights add on average is taken off the biases (Nagel et al., ICCV 2019).

Shapes: R tokens, K inputs of a linear layer, N outputs, V rows of an embedding.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fakenews.errors import ConfigError

Array = NDArray[Any]
Feed = Mapping[str, Array]
"""The inputs of a batch, by name."""

# Weights have 7 bits. CPUs without an instruction for it (AVX2) sum two products in 16 bits,
# which are too few for 8: the mean error of a probability grew by half, on these alone.
_WEIGHT_LIMIT = 63
_ACTIVATION_LIMIT = 255
_TABLE_LIMIT = 127
# How much of a channel's range the weights take over, 0..1. With MiniLM on headlines the mean
# error of a probability was 0.015 at 0.5, 0.007 at 0.75, 0.009 at 0.9, and 0.013 without.
_SHARE = 0.75
# Smaller embeddings are not worth it.
_TABLE_ROWS = 1000
_TINY = 1e-5


def quantise(model: bytes, examples: Sequence[Feed]) -> bytes:
    """Quantise the linear layers and the large embeddings of a transformer.

    Args:
        model: As `to_onnx` gives it.
        examples: Batches that show the range of activations; needs one row at least.

    Raises:
        ConfigError: There are no such layers.
    """
    proto = onnx.load_from_string(model)
    graph = _Graph(proto.graph)
    linear = graph.linear()
    if not linear:
        raise ConfigError(
            "engine=onnx-int8 finds no layers in this model to quantise: choose engine=onnx"
        )
    seen = _activations(proto, sorted(linear), examples)
    for node in graph.embeddings():
        graph.quantise_embedding(node)
    for source, nodes in linear.items():
        graph.quantise_linear(nodes, seen[source])
    graph.replace()
    return bytes(proto.SerializeToString(deterministic=True))


class _Seen:
    """What was seen of K channels: `low`, `high` and `mean`, [K] each.

    Args:
        channels: K.
    """

    def __init__(self, channels: int) -> None:
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)
        self._total = np.zeros(channels)
        self._tokens = 0

    @property
    def mean(self) -> Array:
        return self._total / self._tokens

    def add(self, values_RK: Array) -> None:
        self.low = np.minimum(self.low, values_RK.min(axis=0))
        self.high = np.maximum(self.high, values_RK.max(axis=0))
        self._total += values_RK.sum(axis=0, dtype=np.float64)
        self._tokens += len(values_RK)


def _activations(
    proto: onnx.ModelProto, names: Sequence[str], examples: Sequence[Feed]
) -> dict[str, _Seen]:
    """What these tensors hold when the model runs."""
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    known = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same sums on any machine of a kind
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    read = [node.name for node in session.get_inputs()]
    seen: dict[str, _Seen] = {}
    for feed in examples:
        real_R = feed["attention_mask"].ravel() > 0
        found = session.run(names, {name: feed[name] for name in read})
        for name, values in zip(names, found, strict=True):
            values_RK = values.reshape(-1, values.shape[-1])
            if len(values_RK) == len(real_R):
                values_RK = values_RK[real_R]  # padding is never asked for
            seen.setdefault(name, _Seen(values_RK.shape[1])).add(values_RK)
    return seen


class _Graph:
    """Puts quantised nodes in the place of others.

    Args:
        graph: Changed by `replace`.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._constants = {item.name: item for item in graph.initializer}
        self._instead: dict[str, list[NodeProto]] = {}  # by the output of the node

    def linear(self) -> dict[str, list[NodeProto]]:
        """The products with constant matrices, by what goes into them."""
        found: dict[str, list[NodeProto]] = {}
        for node in self._graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]):
                found.setdefault(node.input[0], []).append(node)
        return found

    def embeddings(self) -> Iterator[NodeProto]:
        """The look-ups in large constant matrices."""
        for node in self._graph.node:
            if node.op_type != "Gather" or not self._is_matrix(node.input[0]):
                continue
            if self._constants[node.input[0]].dims[0] >= _TABLE_ROWS:
                yield node

    def quantise_linear(self, nodes: Sequence[NodeProto], seen: _Seen) -> None:
        """Quantise linear layers that read the same, which is quantised once."""
        source = nodes[0].input[0]
        weights = [self._array(node.input[1]) for node in nodes]
        balance_K = _balance(
            np.maximum(np.abs(seen.low), np.abs(seen.high)),
            np.max([np.abs(weight_KN).max(axis=1) for weight_KN in weights], axis=0),
        )
        low = min(0.0, float((seen.low / balance_K).min()))
        high = max(0.0, float((seen.high / balance_K).max()))
        step = max((high - low) / _ACTIVATION_LIMIT, _TINY)
        name = f"{source}/int8"
        scales = [
            self._add(f"{name}/step", np.float32(step)),
            self._add(f"{name}/zero", np.uint8(round(-low / step))),
        ]
        balance = self._add(f"{name}/balance", (1 / balance_K).astype(np.float32))
        begin = [
            helper.make_node("Mul", [source, balance], [f"{name}/balanced"]),
            helper.make_node("QuantizeLinear", [f"{name}/balanced", *scales], [name]),
            helper.make_node("DequantizeLinear", [name, *scales], [f"{name}/back"]),
        ]
        for node, weight_KN in zip(nodes, weights, strict=True):
            own = self._product(
                node.output[0],
                f"{name}/back",
                weight_KN * balance_K[:, None],
                seen.mean / balance_K,
            )
            self._instead[node.output[0]] = [*begin, *own]
            begin = []

    def _product(
        self, output: str, source: str, weight_KN: Array, mean_K: Array
    ) -> list[NodeProto]:
        step_N = np.maximum(np.abs(weight_KN).max(axis=0), _TINY) / _WEIGHT_LIMIT
        step_N = step_N.astype(np.float32)
        whole_KN = np.rint(weight_KN / step_N).astype(np.int8)
        inputs = [
            self._add(f"{output}/int8", whole_KN),
            self._add(f"{output}/step", step_N),
            self._add(f"{output}/zero", np.zeros(len(step_N), dtype=np.int8)),
        ]
        shift_N = (mean_K @ (weight_KN - whole_KN * step_N)).astype(np.float32)
        made = [
            helper.make_node("DequantizeLinear", inputs, [f"{output}/weight"], axis=1),
            helper.make_node("MatMul", [source, f"{output}/weight"], [output]),
        ]
        if (bias := self._bias(output)) is not None:
            node, place = bias
            shifted = self._array(node.input[place]) + shift_N
            node.input[place] = self._add(f"{output}/bias", shifted)
        else:
            product = f"{output}/product"
            made[-1].output[0] = product
            shift = self._add(f"{output}/shift", shift_N)
            made.append(helper.make_node("Add", [product, shift], [output]))
        return made

    def _bias(self, output: str) -> tuple[NodeProto, int] | None:
        """The node that adds a constant to a product, and which input that is."""
        users = [node for node in self._graph.node if output in node.input]
        if len(users) == 1 and users[0].op_type == "Add":
            for place, name in enumerate(users[0].input):
                if name in self._constants:
                    return users[0], place
        return None

    def quantise_embedding(self, node: NodeProto) -> None:
        """Quantise an embedding, each of its rows in steps of its own."""
        table_VK, output = self._array(node.input[0]), node.output[0]
        step_V1 = np.maximum(np.abs(table_VK).max(axis=1, keepdims=True), _TINY) / _TABLE_LIMIT
        whole = self._add(f"{output}/table", np.rint(table_VK / step_V1).astype(np.int8))
        step = self._add(f"{output}/row_steps", step_V1.astype(np.float32))
        self._instead[output] = [
            helper.make_node("Gather", [whole, node.input[1]], [f"{output}/row"]),
            helper.make_node(
                "Cast", [f"{output}/row"], [f"{output}/wide"], to=TensorProto.FLOAT
            ),
            helper.make_node("Gather", [step, node.input[1]], [f"{output}/row_step"]),
            helper.make_node("Mul", [f"{output}/wide", f"{output}/row_step"], [output]),
        ]

    def replace(self) -> None:
        """Put the new nodes into the graph, and leave out constants that nothing reads."""
        nodes = [
            made
            for node in self._graph.node
            for made in self._instead.get(node.output[0], [_copied(node)])
        ]
        read = {name for node in nodes for name in node.input}
        constants = [item for name, item in self._constants.items() if name in read]
        for part in (self._graph.node, self._graph.initializer, self._graph.value_info):
            del part[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(constants)

    def _is_matrix(self, name: str) -> bool:
        return name in self._constants and len(self._constants[name].dims) == 2

    def _array(self, name: str) -> Array:
        return numpy_helper.to_array(self._constants[name])

    def _add(self, name: str, array: Any) -> str:
        self._constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name


def _balance(seen_K: Array, weight_K: Array) -> Array:
    """By what each channel is divided, and its weights multiplied; 1 on average."""
    seen_K, weight_K = (np.log(np.maximum(widest, _TINY)) for widest in (seen_K, weight_K))
    balance_K = _SHARE * seen_K - (1 - _SHARE) * weight_K
    return np.asarray(np.exp(balance_K - balance_K.mean()))


def _copied(node: NodeProto) -> NodeProto:
    # What is deleted from a message is no longer its own.
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
