"""Local folders as packages: links in them."""

from __future__ import annotations

from pathlib import Path

from tidemill.objects.folders import folder_files


def test_a_folder_that_links_lead_to_is_there_under_each_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.bin").write_bytes(b"1")
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch/weights").symlink_to("../weights")
    (tmp_path / "batch/gone").symlink_to("nowhere")
    assert [name for name, _ in folder_files(tmp_path)] == ["batch/weights/w.bin", "weights/w.bin"]


def test_a_link_that_leads_back_up_ends_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_bytes(b"1")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to(".")
    assert [name for name, _ in folder_files(tmp_path)] == ["a/x"]
