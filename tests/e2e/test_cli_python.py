"""`tidemill.run` in Python: the same as the command, with arguments for flags."""

from __future__ import annotations

from pathlib import Path

import pytest

import tidemill
from tidemill.domain.errors import InvalidValue, Refused
from tidemill.running import RunProgress

MODEL = """\
class Model:
    def load(self):
        pass

    def predict(self, batch):
        return [record["n"] * 2 for record in batch]
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model/batch").mkdir(parents=True)
    (tmp_path / "model/batch/model_service.py").write_text(MODEL)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"m": 3}\n')


def test_keys_as_arguments_and_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    result = tidemill.run(model=Path("model"), input="in/", output=Path("out"), tolerance=0.5)
    assert (result.status, result.inputs, result.ok, result.failed) == ("SUCCEED", 3, 2, 1)
    assert list(result.predictions()) == [2, 4, None]
    assert [error["line"] for error in result.errors()] == [3]
    assert "predicting" in capsys.readouterr().err
    shown = result._repr_html_()
    assert "SUCCEED WITH 1 FAILED RECORD" in shown
    assert "KeyError" in shown


def test_a_mapping_or_a_file_with_keys_over_it(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/task.yaml").write_text("model: ../model\ninput: ../in/\noutput: ../out\ntolerance: 50%\n")
    assert tidemill.run("jobs/task.yaml", output="there", progress=False).output == f"{tmp_path}/there/"
    task = {"model": "model", "input": {"path": Path("in")}, "output": "here", "tolerance": 1}
    assert tidemill.run(task, progress=False).status == "SUCCEED"
    assert task["input"] == {"path": Path("in")}


def test_progress_is_told_to_who_asks(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[RunProgress] = []
    tidemill.run(model="model", input="in/", output="out/", tolerance=1, progress=seen.append)
    assert seen[-1].phase == "finished"
    assert seen[-1].counts.inputs == 3
    assert capsys.readouterr().err == ""


def test_a_failed_task_is_a_result_and_a_wrong_request_is_raised() -> None:
    result = tidemill.run(model="model", input="in/", output="out/", progress=False)
    assert (result.status, result.reason) == ("FAILED", "too_many_failed_records")
    assert "tolerates" in result.explanation
    with pytest.raises(Refused, match="nothing"):
        tidemill.run(model="nothing", input="in/", output="out-2/", progress=False)
    with pytest.raises(InvalidValue, match="'input'"):
        tidemill.run(model="model", inptu="in/", output="out-2/", progress=False)  # type: ignore[call-arg]
