"""The float network: tidied, its head found, and run node by node."""

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from . import QuantizationError

# Per-channel DequantizeLinear came with it.
OPSET_MIN = 13


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def session(model, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class Network:
    """Nodes in execution order, constants by name, and the pooling + linear ending.

    `features` is the tensor that the global average pooling reads, `pool` the index of
    that node; `head_weights` is [channels, classes], `head_bias` the constant's name or None.
    """

    def __init__(self, model, threads=1):
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.threads = threads
        for opset in self.model.opset_import:
            if opset.domain in ("", "ai.onnx") and opset.version < OPSET_MIN:
                raise QuantizationError(f"opset {opset.version}: {OPSET_MIN} or later is needed; export the model anew")
        graph = self.model.graph
        self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.inputs = [i for i in graph.input if i.name not in self.constants]
        if len(self.inputs) != 1:
            raise QuantizationError(f"{len(self.inputs)} inputs ({', '.join(i.name for i in self.inputs)}), expected one image")
        self.input = self.inputs[0].name
        dims = self.inputs[0].type.tensor_type.shape.dim
        self.channels_last = len(dims) == 4 and dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3)
        self.outputs = [o.name for o in graph.output]
        self.kept_float = set()  # tensors whose node is to stay in float
        self.nodes = list(graph.node)
        if any(n.op_type in ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "DynamicQuantizeLinear") for n in self.nodes):
            raise QuantizationError("the model is quantized already; give the float model")
        self._absorb_constants()
        self._fold_normalization()
        for i, node in enumerate(self.nodes):
            node.name = node.name or f"{node.op_type}_{i}"
        self._find_head()

    # --- structure

    def producer(self, tensor):
        return next((n for n in self.nodes if tensor in n.output), None)

    def consumers(self, tensor):
        return [n for n in self.nodes if tensor in n.input]

    def is_depthwise(self, node):
        return node.op_type == "Conv" and attributes(node).get("group", 1) == self.constants[node.input[1]].shape[0] > 1

    def _absorb_constants(self):
        """Constant nodes become constants; Identity and Dropout vanish."""
        kept, alias = [], {}
        for node in self.nodes:
            for i, name in enumerate(node.input):
                node.input[i] = alias.get(name, name)
            if node.op_type == "Constant":
                value = attributes(node).get("value")
                if value is not None:
                    self.constants[node.output[0]] = numpy_helper.to_array(value)
                    continue
            if node.op_type in ("Identity", "Dropout") and node.output[0] not in self.outputs:
                alias[node.output[0]] = node.input[0]
                continue
            kept.append(node)
        self.nodes = kept

    def _fold_normalization(self):
        """BatchNormalization into the convolution before it."""
        for norm in [n for n in self.nodes if n.op_type == "BatchNormalization"]:
            conv = self.producer(norm.input[0])
            if conv is None or conv.op_type != "Conv" or len(self.consumers(norm.input[0])) != 1 or norm.input[0] in self.outputs:
                continue
            gamma, beta, mean, variance = (self.constants[n].astype(np.float64) for n in norm.input[1:5])
            scale = gamma / np.sqrt(variance + attributes(norm).get("epsilon", 1e-5))
            weight = self.constants[conv.input[1]]
            bias = self.constants[conv.input[2]] if len(conv.input) > 2 else 0.0
            self.set_weights(conv, weight * scale.reshape(-1, 1, 1, 1), beta + (bias - mean) * scale)
            conv.output[0] = norm.output[0]
            self.nodes.remove(norm)

    def set_weights(self, conv, weight, bias):
        """Own copies under the node's name: two convolutions may have shared one tensor."""
        base = conv.name or conv.output[0]
        names = [base + ".weight", base + ".bias"]
        self.constants[names[0]] = np.ascontiguousarray(weight, np.float32)
        self.constants[names[1]] = np.ascontiguousarray(bias, np.float32)
        del conv.input[1:]
        conv.input.extend(names)

    def weights(self, conv):
        weight = self.constants[conv.input[1]]
        if len(conv.input) > 2 and conv.input[2]:
            return weight, self.constants[conv.input[2]]
        return weight, np.zeros(weight.shape[0], np.float32)

    def _find_head(self):
        """The last global average pooling and the linear layer behind it."""
        pools = [i for i, n in enumerate(self.nodes) if self._is_pool(n)]
        if not pools:
            last = ", ".join(n.op_type for n in self.nodes[-4:])
            raise QuantizationError(
                "no global average pooling (GlobalAveragePool, or ReduceMean over height and width) before a "
                f"linear layer was found; the network ends in {last}"
            )
        self.pool = pools[-1]
        self.features = self.nodes[self.pool].input[0]
        linear = None
        tensor = self.nodes[self.pool].output[0]
        while (next_nodes := self.consumers(tensor)) and linear is None:
            node = next_nodes[0]
            if node.op_type in ("Gemm", "MatMul", "Conv") and node.input[1] in self.constants:
                linear = node
            elif node.op_type not in ("Flatten", "Reshape", "Squeeze", "Transpose"):
                break
            tensor = node.output[0]
        if linear is None:
            raise QuantizationError("the global average pooling isn't followed by a linear layer (Gemm, MatMul or 1x1 Conv)")
        weight = self.constants[linear.input[1]]
        if linear.op_type == "Conv" or attributes(linear).get("transB", 0):
            weight = weight.reshape(weight.shape[0], -1).T
        self.head_weights = weight
        self.logits = linear.output[0]
        # MatMul keeps its bias in an Add of its own
        after = self.consumers(self.logits)
        added = linear.input[2:]
        if linear.op_type == "MatMul" and len(after) == 1 and after[0].op_type == "Add":
            self.logits = after[0].output[0]
            added = after[0].input
        biases = [t for t in added if t in self.constants and self.constants[t].size == weight.shape[1]]
        self.head_bias = biases[0] if biases and attributes(linear).get("beta", 1) == 1 else None

    def _is_pool(self, node):
        if node.op_type == "GlobalAveragePool":
            return True
        if node.op_type != "ReduceMean":
            return False
        axes = attributes(node).get("axes") or (self.constants.get(node.input[1]) if len(node.input) > 1 else None)
        return axes is not None and sorted(int(a) % 4 for a in axes) in ([2, 3], [1, 2])

    # --- running

    def to_model(self, outputs=None):
        """The network as it is now; `outputs` replaces the graph's outputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        used = {i for n in self.nodes for i in n.input}
        graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in self.constants.items() if k in used)
        inputs = [i for i in self.inputs]
        del graph.input[:]
        graph.input.extend(inputs)
        if outputs is not None:
            del graph.output[:]
            graph.output.extend(helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs)
        return model

    def run_node(self, node, streams, overrides=None):
        """Runs one node over lists of tensors; yields its first output per photo.

        `streams` maps a tensor name to its list; `overrides` replaces constants.
        """
        varying = [n for n in dict.fromkeys(node.input) if n and n in streams]
        values = {n: (overrides or {}).get(n, self.constants.get(n)) for n in node.input if n and n not in streams}
        graph = helper.make_graph(
            [node],
            "node",
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in varying],
            [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(v, k) for k, v in values.items()],
        )
        model = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        run = session(model, self.threads)
        for tensors in zip(*(streams[n] for n in varying)):
            yield run.run(None, dict(zip(varying, tensors)))[0]
