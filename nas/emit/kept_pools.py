"""Max pools in real numbers before integers, written so that ONNX Runtime does not quantize in front of them.

It moves a QuantizeLinear to in front of the pool that it reads: four times as many numbers are quantized, and
the pool becomes one of codes in a layout whose kernel takes many times as long (`benchmarks/kept_pools.py`).
`Sum` of one tensor gives what it reads; nothing is moved past it, and it keeps the layout of convolutions.
"""

import onnx
from onnx import helper

KEPT = "kept"  # ends the name of what stands between


def keep_pools(graph: onnx.GraphProto) -> None:
    """Put a `Sum` of one behind every max pool in real numbers that QuantizeLinear alone reads, in place."""
    producers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {value.name: {"output"} for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if (
            node.op_type == "MaxPool"
            and producers.get(node.input[0]) != "DequantizeLinear"
            and readers.get(node.output[0]) == {"QuantizeLinear"}
        ):
            given = node.output[0]
            node.output[0] = f"{given}.{KEPT}"
            nodes.append(helper.make_node("Sum", [node.output[0]], [given], f"{node.name or given}.{KEPT}"))
    if len(nodes) > len(graph.node):
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)
