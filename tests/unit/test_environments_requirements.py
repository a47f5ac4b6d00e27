"""What a package's requirements.txt asks for, what is refused, and when our own Python has it already."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tidemill.domain.errors import InvalidValue
from tidemill.environments.asking import asks
from tidemill.environments.own import own_versions, runtime_bounds, runtime_parts
from tidemill.environments.requirements import Wanted, read_requirements


def read(tmp_path: Path, text: str, **files: str) -> Wanted | None:
    root = tmp_path / "model"
    root.mkdir(exist_ok=True)
    (root / "requirements.txt").write_text(text)
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return read_requirements(root)


def wanted(tmp_path: Path, text: str, **files: str) -> Wanted:
    found = read(tmp_path, text, **files)
    assert found is not None
    return found


@pytest.mark.parametrize("text", ["", "# nothing\n\n   # at all", "\ufeff# with a mark", "--no-index\n"])
def test_a_file_that_asks_for_nothing_counts_as_none(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) is None


def test_a_package_without_the_file_asks_for_nothing(tmp_path: Path) -> None:
    assert not asks(tmp_path, None)
    assert read_requirements(tmp_path, None) is None


def test_lines_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    found = wanted(
        tmp_path,
        "# a comment\nNumPy >= 1.20 , <3  # why\nscikit-learn\\\n  ==1.5\ntomli; python_version < '3'\n"
        "foo[bar] ; extra == 'x'\n-r more/deep.txt\n--constraint=bounds.txt\n-i https://a.example/simple\n"
        "https://a.example/x-1.0-py3-none-any.whl\nthing @ git+https://a.example/thing@v1\n"
        f"pinned==1 --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n",
        more__deep_txt="six\n-r ../requirements.txt\n-c ../bounds.txt\n",
        bounds_txt="numpy<2\n",
    )
    assert found.requirements[:4] == (
        "NumPy<3,>=1.20",
        "scikit-learn==1.5",
        'tomli; python_version < "3"',
        'foo[bar]; extra == "x"',
    )
    assert found.requirements[4] == "six"
    assert found.requirements[-1] == f"pinned==1 --hash=sha256:{'a' * 64} --hash=sha256:{'b' * 64}"
    assert found.constraints == ("numpy<2",)
    assert found.options == ("--index-url https://a.example/simple", "--require-hashes")
    assert found.others


def test_model_and_code_ask_together(tmp_path: Path) -> None:
    for name, text in (("model", "numpy\n"), ("code", "six\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "requirements.txt").write_text(text)
    found = read_requirements(tmp_path / "model", tmp_path / "code")
    assert found is not None
    assert found.requirements == ("numpy", "six")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-r ../../other.txt", "leads out of the package"),
        ("-r /etc/passwd", "outside the package"),
        ("-r https://a.example/r.txt", "not read from elsewhere"),
        ("-r missing.txt", "there is no file 'missing.txt'"),
        ("-c ../bounds.txt", "leads out of the package"),
        ("../lib", "leads out of the package"),
        ("/opt/lib", "outside the package"),
        ("~/lib", "outside the package"),
        ("file:///opt/lib", "outside the package"),
        ("thing @ file:///opt/thing.whl", "outside the package"),
        ("--find-links /opt/wheels", "outside the package"),
        ("--find-links file:///opt/wheels", "outside the package"),
        ("-f ../wheels", "leads out of the package"),
        ("./missing.whl", "there is no file './missing.whl'"),
        ("-e ./lib", "editable installs are not shared"),
        ("--target /tmp", "'--target' is not known"),
        ("--index-url", "needs a value"),
        ("--index-url https://${USER}:${KEY}@a.example", "variables are not filled in"),
        ("numpy=>1", "is no requirement"),
        ("ftp://a.example/x.whl", "outside the package"),
    ],
)
def test_what_leads_elsewhere_is_refused_with_its_line(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=r"requirements\.txt line 2") as refused:
        read(tmp_path, f"six\n{line}\n")
    assert words in str(refused.value)
    assert refused.value.field == "requirements.txt"


def test_a_link_out_of_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("six\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/more.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InvalidValue, match="leads out of the package"):
        read(tmp_path, "-r more.txt\n")


def test_local_files_count_by_their_content_and_not_by_their_place(tmp_path: Path) -> None:
    text = "--find-links ./wheels\n./lib[x] ; python_version > '3'\nother @ ./wheels/a.whl\n"
    prints = []
    for place, content in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / place).mkdir()
        found = wanted(tmp_path / place, text, wheels__a_txt=content, **{"lib__x_txt": "x", "wheels__a.whl": "w"})
        assert found.others
        uri = (tmp_path / place / "model").as_uri()
        assert found.requirements == (f"{uri}/lib[x] ; python_version > '3'", f"other @ {uri}/wheels/a.whl")
        prints.append(found.fingerprint())
    assert prints[0] == prints[1] != prints[2]


def test_comments_and_blanks_make_no_other_environment(tmp_path: Path) -> None:
    first = wanted(tmp_path, "six==1.0\n").fingerprint()
    assert wanted(tmp_path, "# mine\n\n  six ==1.0   # here\n").fingerprint() == first
    assert wanted(tmp_path, "six==1.1\n").fingerprint() != first
    assert wanted(tmp_path, "six==1.0\n-c b.txt\n", b_txt="x<2\n").fingerprint() != first


def test_our_own_python_will_do_where_it_has_everything(tmp_path: Path) -> None:
    version = importlib.metadata.version("msgspec")
    assert own_versions(wanted(tmp_path, "msgspec>=0.1\nnone-such; python_version < '3'\n")) == {"msgspec": version}
    assert own_versions(wanted(tmp_path, f"msgspec=={version}\n-c b.txt\n", b_txt="urllib3>1\n")) is not None


@pytest.mark.parametrize(
    "text",
    [
        "none-such-package-of-ours",
        "msgspec<0.1",
        "msgspec\nnone-such-package-of-ours",
        f"msgspec --hash=sha256:{'a' * 64}",
        "msgspec @ https://a.example/msgspec.whl",
        "msgspec\n--no-binary :all:",
        "uvicorn[none]\nhttpx[http2,socks,zstd,brotli]",
        "msgspec\n-c b.txt",
    ],
)
def test_anything_else_makes_an_environment(tmp_path: Path, text: str) -> None:
    assert own_versions(wanted(tmp_path, text, b_txt="urllib3<1\n")) is None


def test_the_runtime_brings_what_it_is_made_of() -> None:
    names = {part.name for part in runtime_parts()}
    assert {"tidemill-runtime", "msgspec", "urllib3"} <= names
    assert not names & {"numpy", "scikit-learn", "lightgbm"}
    assert all(part.paths for part in runtime_parts())
    assert [line.split(">")[0] for line in runtime_bounds()] == ["msgspec", "urllib3"]
