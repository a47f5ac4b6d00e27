"""How models and packages are named, and what is refused."""

from __future__ import annotations

import pytest

from tidemill.domain.errors import InvalidValue
from tidemill.domain.references import (
    ModelReference,
    PackageReference,
    is_folder,
    parse_model,
    parse_package,
    version_of,
)

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("churn", ModelReference("churn")),
        ("churn@latest", ModelReference("churn")),
        ("churn@2", ModelReference("churn", 2)),
        ("流失@生产", ModelReference("流失", None, "生产")),
        (f"sha256:{DIGEST}", PackageReference(DIGEST)),
    ],
)
def test_names_of_models(text: str, meant: ModelReference | PackageReference) -> None:
    parsed = parse_model(text, field="model")
    assert parsed == meant
    assert parse_model(str(parsed), field="model") == meant


@pytest.mark.parametrize("text", ["./churn", "a/b", "~", "~/x", "..", "/m", "a\\b"])
def test_folders_are_for_the_client(text: str) -> None:
    assert is_folder(text)
    with pytest.raises(InvalidValue, match="not an uploaded package"):
        parse_model(text, field="model")


@pytest.mark.parametrize("text", ["churn", "churn@2", f"sha256:{DIGEST}", "sha256:a/b"])
def test_what_is_no_folder(text: str) -> None:
    assert not is_folder(text)


@pytest.mark.parametrize("text", [f"sha256:{DIGEST[:-1]}", f"sha256:{DIGEST.upper()}", DIGEST, "sha256:", "sha256:a/b"])
def test_bad_digests(text: str) -> None:
    with pytest.raises(InvalidValue, match="not an uploaded package") as refused:
        parse_package(text, field="model")
    assert refused.value.field == "model"


@pytest.mark.parametrize("selector", ["", "0", "007", "1234567890", "-x", "a b", "x" * 61, "a@b"])
def test_bad_versions(selector: str) -> None:
    with pytest.raises(InvalidValue, match="not a version of a model"):
        version_of("churn", selector)
