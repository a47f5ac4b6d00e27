# ruff: noqa: INP001, D - a model package, as users bring them
"""W4: the length of a text, so that all the time goes into what stands around the model."""


class LengthModel:
    def load(self):
        return True

    def predict(self, batch: list[dict]):
        return [{"id": record["id"], "len": len(record["text"])} for record in batch]
