# ruff: noqa: INP001, D - a model package, as users bring them
"""W2: sentence embeddings."""

import os

import numpy
import onnxruntime
from tokenizers import Tokenizer


class EmbeddingModel:
    def __init__(self, folder):
        self.folder = folder

    def load(self):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.path.join(self.folder, "minilm.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(os.path.join(self.folder, "tokenizer.json"))
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(256)
        return True

    def predict(self, batch: list[dict]):
        return self.embed([record["text"] for record in batch])

    def embed(self, texts):
        encoded = self.tokenizer.encode_batch(texts)
        ids = numpy.array([one.ids for one in encoded], numpy.int64)
        mask = numpy.array([one.attention_mask for one in encoded], numpy.int64)
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
