"""Tensors of KServe's protocol, version 2 (the "open inference protocol"), in JSON.

Shapes: n items, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_DATATYPES = {"BYTES", "BOOL", "FP16", "FP32", "FP64"} | {
    f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)
}


def is_v2(inputs: Sequence[Any]) -> bool:
    """Whether a list of inputs is one of tensors, and not one of items."""
    return any(
        isinstance(found, dict) and "text" not in found and {"name", "data"} <= found.keys()
        for found in inputs
    )


def read_tensors(inputs: Sequence[Any]) -> tuple[dict[str, list[Any]], int]:
    """The columns that tensors hold, and how many items they have.

    Args:
        inputs: Tensors of shape [n] or [n, 1], one of them named `text`.

    Returns:
        Values by name of the tensor, and n.

    Raises:
        ValueError: Saying which tensor is wrong, and why.
    """
    columns: dict[str, list[Any]] = {}
    for number, tensor in enumerate(inputs, start=1):
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str) or name in columns:
            raise ValueError(f"input {number} is no tensor with a name of its own")
        columns[name] = _values(tensor, number)
    if "text" not in columns:
        raise ValueError("there is no input named text")
    counts = {len(values) for values in columns.values()}
    if len(counts) > 1:
        raise ValueError("the inputs differ in their number of items")
    return columns, counts.pop()


def _values(tensor: Mapping[str, Any], number: int) -> list[Any]:
    datatype = tensor.get("datatype")
    if not (isinstance(datatype, str) and datatype in _DATATYPES):
        raise ValueError(f"input {number} has no datatype that is known")
    shape, data = tensor.get("shape"), tensor.get("data")
    if not (
        isinstance(shape, list)
        and all(type(size) is int and size >= 0 for size in shape)
        and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))
    ):
        raise ValueError(f"input {number} must have the shape [n] or [n, 1]")
    values: list[Any] = data if isinstance(data, list) else []
    if len(shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in values):
        values = [row[0] for row in values]
    if len(values) != shape[0]:
        raise ValueError(f"the data of input {number} are not as many as its shape says")
    return values


def v2_answer(
    results: Sequence[tuple[Mapping[str, Any] | None, str]],
    *,
    model: str,
    version: str,
    classes: Sequence[str],
    id_: str | None,
) -> dict[str, Any]:
    """The answer that names its outputs as tensors.

    Args:
        results: For each item its prediction, or None and what is wrong.
        model: Its name.
        version: Of the model.
        classes: Class names, in the order of the probabilities.
        id_: Of the request.

    Returns:
        Outputs `label` [n], `probabilities` [n, C] (null where there are none), `unsure` [n],
        `truncated` [n], `error` [n] (empty where there is none) and `classes` [C].
    """
    count = len(results)

    def output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape, "data": data}

    def column(name: str, *, absent: Any) -> list[Any]:
        return [absent if found is None else found[name] for found, _ in results]

    probabilities = [
        None if found is None else found["probabilities"][name]
        for found, _ in results
        for name in classes
    ]
    content: dict[str, Any] = {
        "model_name": model,
        "model_version": version,
        "outputs": [
            output("label", "BYTES", [count], column("label", absent="")),
            output("probabilities", "FP64", [count, len(classes)], probabilities),
            output("unsure", "BOOL", [count], column("unsure", absent=False)),
            output("truncated", "BOOL", [count], column("truncated", absent=False)),
            output("error", "BYTES", [count], [error for _, error in results]),
            output("classes", "BYTES", [len(classes)], list(classes)),
        ],
    }
    if id_ is not None:
        content["id"] = id_
    return content
