"""Models without code: trained here, run over JSON lines, CSV and Parquet, and equal to calling the library itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy
import pandas
import polars
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from tests.integration.local_world import World
from tidemill.local import run

ROWS = 240
PLANS = ("free", "pro", "team")


def table() -> pandas.DataFrame:
    random = numpy.random.default_rng(7)
    return pandas.DataFrame(
        {
            "id": [f"u{number}" for number in range(ROWS)],
            "months": random.integers(0, 60, ROWS),
            "plan": random.choice(PLANS, ROWS),
            "age": random.uniform(18, 90, ROWS).round(3),
        }
    )


def churned(frame: pandas.DataFrame) -> numpy.ndarray:
    return ((frame["age"] > 50) ^ (frame["months"] > 30)).to_numpy().astype(int)


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "model").mkdir()
    return World(tmp_path)


def write(world: World, frame: pandas.DataFrame, kind: str) -> str:
    """The table as an input of this format; the name of its result."""
    path = world.root / "in" / f"a.{kind}"
    path.parent.mkdir()
    if kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in frame.to_dict("records")))
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        polars.DataFrame(frame.to_dict("list")).write_parquet(path, row_group_size=50)
    return f"a.{kind}.out.jsonl"


def declare(world: World, **values: Any) -> None:
    (world.root / "model" / "tidemill.json").write_text(json.dumps(values))


def bad_lines(world: World, frame: pandas.DataFrame, **bad: Any) -> str:
    """JSON lines whose records 3 and 100 have these values instead."""
    records = frame.to_dict("records")
    for number in (3, 100):
        records[number].update(bad)
    world.file("in/a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    return "a.jsonl.out.jsonl"


def assert_only_those_failed(world: World, result: Any, expected: list[Any], words: str) -> None:
    """Records 3 and 100 are errors that say so; every other prediction is as expected."""
    assert (result.status, result.failed) == ("SUCCEED", 2)
    found = world.read("a.jsonl.out.jsonl")
    assert [number for number, value in enumerate(found) if value is None] == [3, 100]
    for number, (value, wanted) in enumerate(zip(found, expected, strict=True)):
        assert number in (3, 100) or value == pytest.approx(wanted, rel=1e-6), number
    errors = world.read("errors.jsonl")
    assert [error["line"] for error in errors] == [4, 101]
    for error in errors:
        assert words in error["message"], error["message"]


FORMATS = pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])


# scikit-learn


def pipeline(frame: pandas.DataFrame) -> Any:
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["age", "months"]), ("plans", OneHotEncoder(), ["plan"])]
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame[["age", "months", "plan"]], churned(frame))


@pytest.mark.parametrize(
    ("kind", "method"),
    [("jsonl", "predict"), ("csv", "predict_proba"), ("parquet", "predict_proba")],
)
def test_a_scikit_learn_pipeline(world: World, kind: str, method: str) -> None:
    frame = table()
    model = pipeline(frame)
    joblib.dump(model, world.root / "model" / "churn.joblib")
    if method != "predict":
        declare(world, method=method)
    name = write(world, frame, kind)
    assert world.run().status == "SUCCEED"
    assert world.read(name) == getattr(model, method)(frame).tolist()


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_a_bad_record_of_scikit_learn(world: World, frames: str) -> None:
    frame = table()
    model = pipeline(frame)
    joblib.dump(model, world.root / "model" / "churn.pkl")
    declare(world, batch=frames)
    bad_lines(world, frame, age="old")
    assert_only_those_failed(world, world.run(tolerance=2), model.predict(frame).tolist(), "old")


def test_a_column_that_records_lack_is_named(world: World) -> None:
    frame = table()
    joblib.dump(pipeline(frame), world.root / "model" / "churn.joblib")
    write(world, frame.rename(columns={"age": "Age"}), "csv")
    result = world.run()
    assert result.status == "FAILED"
    assert "no column 'age'" in result.explanation and "'Age'" in result.explanation


def test_a_key_that_a_record_lacks_is_a_missing_value_whatever_is_beside_it(world: World) -> None:
    frame = table()
    model = HistGradientBoostingClassifier(max_iter=5).fit(frame[["age", "months"]], churned(frame))
    joblib.dump(model, world.root / "model" / "churn.joblib")
    records = [{"age": row["age"], "months": row["months"]} for row in frame.to_dict("records")]
    for number in (0, 5, 77):
        del records[number]["age"]
    records[100]["age"] = "old"  # bisecting calls the model with a single record that lacks one
    world.file("in/a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    assert world.run(tolerance=1, batch={"size": 64}).failed == 1
    sparse = pandas.DataFrame([{**record, "age": record.get("age")} for record in records]).assign(
        age=lambda frame: pandas.to_numeric(frame["age"], errors="coerce")
    )
    expected = model.predict(sparse[["age", "months"]]).tolist()
    expected[100] = None
    assert world.read("a.jsonl.out.jsonl") == expected


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_scikit_learn_model_of_a_matrix(world: World, kind: str) -> None:
    frame = table()[["age", "months"]]
    model = RandomForestRegressor(5, random_state=0).fit(frame.to_numpy(), frame["age"] * 2)
    joblib.dump(model, world.root / "model" / "m.joblib")
    name = write(world, frame, kind)
    assert world.run().status == "SUCCEED"
    assert world.read(name) == pytest.approx(model.predict(frame.to_numpy()).tolist())


def test_columns_choose_and_order_the_values_of_a_matrix(world: World) -> None:
    frame = table()
    model = RandomForestRegressor(5, random_state=0).fit(frame[["months", "age"]].to_numpy(), frame["age"] * 2)
    joblib.dump(model, world.root / "model" / "m.joblib")
    declare(world, columns=["months", "age"])
    name = write(world, frame, "jsonl")
    assert world.run().status == "SUCCEED"
    assert world.read(name) == pytest.approx(model.predict(frame[["months", "age"]].to_numpy()).tolist())


def test_a_scikit_learn_model_of_texts(world: World) -> None:
    texts = [f"{'good' if number % 3 else 'bad'} number {number}" for number in range(100)]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        texts, ["yes" if "good" in text else "no" for text in texts]
    )
    joblib.dump(model, world.root / "model" / "m.joblib")
    world.file("in/a.txt", "".join(text + "\n" for text in texts))
    assert world.run().status == "SUCCEED"
    assert world.read("a.txt.out.jsonl") == model.predict(texts).tolist()


def test_a_pickle_of_something_else_is_no_model(world: World) -> None:
    joblib.dump({"weights": [1]}, world.root / "model" / "m.joblib")
    world.numbers("in/a.jsonl", [1])
    result = world.run()
    assert (result.status, result.reason) == ("FAILED", "model_load_failed")
    assert "no method predict" in result.explanation


# LightGBM


@pytest.mark.parametrize(("kind", "objective"), [("jsonl", "binary"), ("csv", "multiclass"), ("parquet", "binary")])
def test_a_lightgbm_model(world: World, kind: str, objective: str) -> None:
    frame = table()
    wanted = frame[["months", "age"]].rename(columns={"age": "the age"})
    labels = churned(frame) if objective == "binary" else frame["plan"].map(PLANS.index).to_numpy()
    options = {"objective": objective, "verbose": -1, "num_leaves": 7}
    if objective == "multiclass":
        options["num_class"] = 3
    booster = lightgbm.train(options, lightgbm.Dataset(wanted, labels), 8)
    booster.save_model(world.root / "model" / "model.txt")
    name = write(world, frame.rename(columns={"age": "the age"}), kind)
    assert world.run().status == "SUCCEED"
    assert world.read(name) == booster.predict(wanted).tolist()


def test_a_bad_record_of_lightgbm(world: World) -> None:
    frame = table()
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1}, lightgbm.Dataset(frame[["age"]], churned(frame)), 5
    )
    booster.save_model(world.root / "model" / "model.lgb")
    bad_lines(world, frame, age="12")  # not even a text that looks like a number
    assert_only_those_failed(world, world.run(tolerance=2), booster.predict(frame[["age"]]).tolist(), "wants numbers")


def test_lightgbm_categories_of_pandas(world: World) -> None:
    frame = table()
    wanted = frame[["plan", "months", "age"]].assign(plan=frame["plan"].astype("category"))
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "min_data_per_group": 1, "cat_smooth": 1},
        lightgbm.Dataset(wanted, frame["plan"] == "pro"),
        5,
    )
    booster.save_model(world.root / "model" / "model.txt")
    records = [*frame.to_dict("records"), {"plan": "unheard of", "months": 1, "age": 20.0}]
    world.file("in/a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    assert world.run().status == "SUCCEED"
    same = pandas.concat([frame, pandas.DataFrame(records[-1:])])[["plan", "months", "age"]]
    same["plan"] = pandas.Categorical(same["plan"].where(same["plan"].isin(PLANS)), sorted(PLANS))
    assert world.read("a.jsonl.out.jsonl") == booster.predict(same).tolist()


def test_a_lightgbm_model_of_a_matrix(world: World) -> None:
    frame = table()[["age", "months"]]
    booster = lightgbm.train({"verbose": -1}, lightgbm.Dataset(frame.to_numpy(), frame["age"]), 5)
    booster.save_model(world.root / "model" / "model.txt")
    world.file("in/a.jsonl", "".join(json.dumps(list(row)) + "\n" for row in frame.to_numpy().tolist()))
    assert world.run().status == "SUCCEED"
    assert world.read("a.jsonl.out.jsonl") == booster.predict(frame.to_numpy()).tolist()


# ONNX


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@FORMATS
def test_an_onnx_model_of_a_matrix(world: World, kind: str) -> None:
    from skl2onnx import to_onnx

    frame = table()[["age", "months"]]
    matrix = frame.to_numpy().astype(numpy.float32)
    model = LogisticRegression().fit(matrix, churned(frame))
    path = world.root / "model" / "model.onnx"
    path.write_bytes(to_onnx(model, matrix[:1]).SerializeToString())
    name = write(world, frame, kind)
    assert world.run().status == "SUCCEED"
    label, chances = session(path).run(None, {"X": matrix})
    found = world.read(name)
    assert [each["output_label"] for each in found] == label.tolist()
    assert [each["output_probability"]["1"] for each in found] == pytest.approx([each[1] for each in chances])


def test_outputs_and_columns_can_be_chosen(world: World) -> None:
    from skl2onnx import to_onnx

    frame = table()
    matrix = frame[["months", "age"]].to_numpy().astype(numpy.float32)
    model = LogisticRegression().fit(matrix, churned(frame))
    path = world.root / "model" / "model.onnx"
    path.write_bytes(to_onnx(model, matrix[:1], options={"zipmap": False}).SerializeToString())
    declare(world, columns=["months", "age"], outputs=["probabilities"])
    bad_lines(world, frame, months=[1])
    expected = session(path).run(["probabilities"], {"X": matrix})[0]
    result = world.run(tolerance=2)
    assert result.failed == 2
    found = world.read("a.jsonl.out.jsonl")
    assert [number for number, each in enumerate(found) if each is None] == [3, 100]
    assert all(each is None or each == pytest.approx(row.tolist()) for each, row in zip(found, expected, strict=True))


@FORMATS
def test_an_onnx_model_with_an_input_for_each_column(world: World, kind: str) -> None:
    from skl2onnx import to_onnx

    frame = table()
    model = pipeline(frame)
    path = world.root / "model" / "model.onnx"
    wanted = frame[["age", "months", "plan"]].astype({"age": "float32"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(to_onnx(model, wanted[:1], options={"zipmap": False}).SerializeToString())
    inputs = {each.name: each.type for each in session(path).get_inputs()}
    assert inputs == {"age": "tensor(float)", "months": "tensor(int64)", "plan": "tensor(string)"}
    name = write(world, frame, kind)
    assert world.run().status == "SUCCEED"
    label, chances = session(path).run(
        None,
        {
            "age": wanted[["age"]].to_numpy(),
            "months": wanted[["months"]].to_numpy(),
            "plan": wanted[["plan"]].to_numpy().astype(object),
        },
    )
    found = world.read(name)
    assert [each["label"] for each in found] == label.tolist()
    assert [each["probabilities"] for each in found] == [pytest.approx(row) for row in chances.tolist()]


def onnx_of(build: Callable[[Any], tuple[list[Any], list[Any], list[Any]]]) -> bytes:
    import onnx

    nodes, inputs, outputs = build(onnx.helper)
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("first", [None, 1])
def test_onnx_rows_within_records_also_one_by_one(world: World, first: int | None) -> None:
    from onnx import TensorProto

    (world.root / "model" / "m.onnx").write_bytes(
        onnx_of(
            lambda h: (
                [h.make_node("Neg", ["x"], ["y"])],
                [h.make_tensor_value_info("x", TensorProto.FLOAT, [first, 3])],
                [h.make_tensor_value_info("y", TensorProto.FLOAT, [first, 3])],
            )
        )
    )
    world.file(
        "in/a.jsonl", '{"x": [1, 2, 3]}\n{"x": [4, 5, 6]}\n{"x": [7, 8]}\n{"x": [7, 8, "a"]}\n{"x": [0, 0, 9]}\n'
    )
    assert world.run(tolerance=2).failed == 2
    assert world.read("a.jsonl.out.jsonl") == [[-1, -2, -3], [-4, -5, -6], None, None, [0, 0, -9]]


def test_an_onnx_model_of_texts(world: World) -> None:
    from onnx import TensorProto

    (world.root / "model" / "m.onnx").write_bytes(
        onnx_of(
            lambda h: (
                [h.make_node("Identity", ["x"], ["y"])],
                [h.make_tensor_value_info("x", TensorProto.STRING, [None])],
                [h.make_tensor_value_info("y", TensorProto.STRING, [None])],
            )
        )
    )
    world.file("in/a.txt", "one\ntwo\n")
    assert world.run().status == "SUCCEED"
    assert world.read("a.txt.out.jsonl") == ["one", "two"]


def test_an_onnx_model_of_a_fixed_number_of_records_is_refused(world: World) -> None:
    from onnx import TensorProto

    (world.root / "model" / "m.onnx").write_bytes(
        onnx_of(
            lambda h: (
                [h.make_node("Neg", ["x"], ["y"])],
                [h.make_tensor_value_info("x", TensorProto.FLOAT, [8, 3])],
                [h.make_tensor_value_info("y", TensorProto.FLOAT, [8, 3])],
            )
        )
    )
    world.file("in/a.jsonl", '{"x": [1, 2, 3]}\n')
    result = world.run()
    assert result.reason == "model_load_failed" and "exactly 8 records" in result.explanation


# MLflow


def log_model(world: World, model: Any, example: Any, predicted: Any) -> Any:
    """Saved as MLflow does; what it is when loaded again."""
    folder = world.root / "model"
    folder.rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc  # importing it warns, and takes long
        import mlflow.sklearn
        from mlflow.models import infer_signature

        mlflow.sklearn.save_model(
            model, folder, signature=infer_signature(example, predicted), serialization_format="cloudpickle"
        )
        (folder / "requirements.txt").unlink()  # what is installed here does; test_environments has the others
        return mlflow.pyfunc.load_model(str(folder))


@FORMATS
def test_an_mlflow_model(world: World, kind: str) -> None:
    frame = table()
    wanted = frame[["age", "months", "plan"]]
    pyfunc = log_model(world, pipeline(frame), wanted, churned(frame))
    name = write(world, frame, kind)
    assert world.run().status == "SUCCEED"
    assert world.read(name) == pyfunc.predict(wanted).tolist()


def test_a_bad_record_of_mlflow(world: World) -> None:
    frame = table()
    wanted = frame[["age", "months", "plan"]]
    pyfunc = log_model(world, pipeline(frame), wanted, churned(frame))
    whole = frame.assign(age=frame["age"].round(0))  # 50 beside 50.5 is no other type
    records = whole.to_dict("records")
    for record in records[:50]:
        record["age"] = int(record["age"])
    records[3]["age"] = records[100]["age"] = "old"
    world.file("in/a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    expected = pyfunc.predict(whole[["age", "months", "plan"]]).tolist()
    assert_only_those_failed(world, world.run(tolerance=2, batch={"size": 40}), expected, "column age")
    assert len({error["fingerprint"] for error in world.read("errors.jsonl")}) == 1


def test_an_mlflow_model_of_a_tensor(world: World) -> None:
    frame = table()[["age", "months"]]
    matrix = frame.to_numpy().astype(numpy.float32)
    model = LogisticRegression().fit(matrix, churned(frame))
    pyfunc = log_model(world, model, matrix, model.predict(matrix))
    name = write(world, frame, "csv")
    assert world.run().status == "SUCCEED"
    assert world.read(name) == pyfunc.predict(matrix).tolist()


# functions


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def score(record): return record['x'] + 1", [2, 3, None]),
        ("def score(batch): return [len(batch) and each['x'] + 1 for each in batch]", [2, 3, None]),
        ("import numpy\ndef score(m: numpy.ndarray): return m[:, 0] * 2", [2, 4, None]),
        ("import functools\ndef old(batch): return [1 for _ in batch]\nscore = functools.partial(max, 0)", None),
    ],
)
def test_a_function(world: World, source: str, expected: list[Any] | None) -> None:
    (world.root / "model" / "churn").mkdir()
    (world.root / "model" / "churn" / "__init__.py").write_text("")
    (world.root / "model" / "churn" / "scoring.py").write_text(source + "\n")
    world.file("in/a.jsonl", '{"x": 1}\n{"x": 2}\n{"x": "a"}\n')
    result = world.run(function="churn.scoring:score", tolerance=3)
    if expected is None:
        assert result.failed == 3  # max(0, a dict) raises, for each by itself
        return
    assert result.failed == 1
    assert world.read("a.jsonl.out.jsonl") == expected


def test_an_installed_function_needs_no_folder(world: World) -> None:
    world.file("in/a.txt", "a\nab\n")
    task = {key: value for key, value in world.task(function="base64:b64encode").items() if key != "model"}
    result = run(task, settings=world.settings)
    assert result.failed == 2  # it wants bytes, and says so for each record
    task["function"] = "urllib.parse:quote"
    task["output"] = str(world.root / "out2")
    assert run(task, settings=world.settings).status == "SUCCEED"
    assert (world.root / "out2" / "a.txt.out.jsonl").read_text() == '"a"\n"ab"\n'
