"""What a package asks for: its requirements.txt with all that it includes, read, checked and made one text.

The text is what is hashed and what is installed, so that a file that changes meanwhile changes neither. Called by
`finding` before a task starts. Files are a user's input: nothing in them may name a file outside their package.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement

from tidemill.domain.errors import InvalidValue
from tidemill.domain.package import is_ignored
from tidemill.environments.asking import FILE_NAME

_FILE_BYTES_MAX = 1 << 20
_FILES_MAX = 100
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s+--hash[=\s]\s*(\S+)")
_VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*\}")
_SCHEMES = ("http", "https", "git+http", "git+https", "git+ssh", "ssh")
_HASHED, _ALL_HASHED = " --hash=", "--require-hashes"
_FLAGS = {"--no-index", "--pre", "--prefer-binary", _ALL_HASHED}
_WITH_VALUE = {
    "-i": "--index-url",
    "--index-url": "--index-url",
    "--extra-index-url": "--extra-index-url",
    "-f": "--find-links",
    "--find-links": "--find-links",
    "--no-binary": "--no-binary",
    "--only-binary": "--only-binary",
    "-r": "--requirement",
    "--requirement": "--requirement",
    "-c": "--constraint",
    "--constraint": "--constraint",
}


@dataclass(frozen=True)
class Wanted:
    """requirements, constraints, options: lines as they are installed; paths in them are absolute.

    parsed, bounds: requirements and constraints that name a package and no place; others is whether there are some that
    name a place, or a hash. local: files and folders of the package whose content counts.
    """

    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    parsed: tuple[Requirement, ...] = ()
    bounds: tuple[Requirement, ...] = ()
    others: bool = False
    local: tuple[tuple[str, Path], ...] = ()

    @property
    def hashed(self) -> bool:
        """Whether nothing may be installed without a hash."""
        return _ALL_HASHED in self.options

    def fingerprint(self) -> list[object]:
        """All that decides what is installed, with the content of local files and without where they lie."""
        content = [[shown, _digest(path)] for shown, path in self.local]
        places = {path.as_uri(): shown for shown, path in self.local}
        lines = [
            [_named(line, places) for line in part] for part in (self.requirements, self.constraints, self.options)
        ]
        return [*lines, content]


@dataclass
class _Reading:
    requirements: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    parsed: list[Requirement] = field(default_factory=list)
    bounds: list[Requirement] = field(default_factory=list)
    others: bool = False
    local: dict[str, Path] = field(default_factory=dict)
    seen: set[tuple[Path, bool]] = field(default_factory=set)


@dataclass(frozen=True)
class _Line:
    """One line of a file. root: the package's folder, which nothing may leave."""

    root: Path
    file: Path
    number: int
    text: str

    def refuse(self, what: str, remedy: str | None = None) -> InvalidValue:
        place = f"{self.file.relative_to(self.root)} line {self.number}"
        return InvalidValue(f"{place}: {what}", field=FILE_NAME, remedy=remedy)


def read_requirements(*packages: Path | None) -> Wanted | None:
    """What these package folders (model and code) ask for together; None where that is nothing.

    Raises InvalidValue with file and line for what cannot be a requirement, and for what lies outside the package.
    """
    reading = _Reading()
    for root in packages:
        if root is not None and (root / FILE_NAME).is_file():
            _read(reading, root, root / FILE_NAME, constraint=False)
    if not reading.requirements:
        return None
    if any(_HASHED in line for line in reading.requirements) and _ALL_HASHED not in reading.options:
        reading.options.append(_ALL_HASHED)  # as pip takes it: one hash, and everything has to have one
    return Wanted(
        tuple(reading.requirements),
        tuple(reading.constraints),
        tuple(reading.options),
        tuple(reading.parsed),
        tuple(reading.bounds),
        reading.others,
        tuple(sorted(reading.local.items())),
    )


def _read(reading: _Reading, root: Path, file: Path, *, constraint: bool) -> None:
    if (file, constraint) in reading.seen:
        return
    reading.seen.add((file, constraint))
    shown = str(file.relative_to(root))
    if len(reading.seen) > _FILES_MAX:
        raise InvalidValue(f"includes more than {_FILES_MAX} files.", field=FILE_NAME)
    try:
        if file.stat().st_size > _FILE_BYTES_MAX:
            raise InvalidValue(f"{shown} is larger than {_FILE_BYTES_MAX >> 20} MiB.", field=FILE_NAME)
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{shown} cannot be read: {error}.", field=FILE_NAME) from error
    for number, words in _lines(text):
        line = _Line(root, file, number, words)
        if _VARIABLE.search(words):
            raise line.refuse(
                "variables are not filled in.", "Write the value, or set the index outside (UV_DEFAULT_INDEX)."
            )
        if words.startswith("-"):
            _option(reading, line, constraint=constraint)
        else:
            _requirement(reading, line, constraint=constraint)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with something on them, by the number of their first: continued ones joined, comments gone."""
    begun, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        begun = begun or number
        continued = raw.endswith("\\") and not raw.lstrip().startswith("#")
        joined += raw[:-1] if continued else raw
        if continued:
            continue
        words = _COMMENT.sub("", joined).strip()
        if words:
            yield begun, words
        begun, joined = 0, ""
    words = _COMMENT.sub("", joined).strip()
    if words:
        yield begun, words


def _option(reading: _Reading, line: _Line, *, constraint: bool) -> None:
    name, value = _split_option(line)
    if name in ("--requirement", "--constraint"):
        if "://" in value:
            raise line.refuse(f"{value!r} is not read from elsewhere.", "Put the file into the package.")
        inner = _inside(line, value)
        if not inner.is_file():
            raise line.refuse(f"there is no file {value!r}.", "Put it into the package.")
        _read(reading, line.root, inner, constraint=constraint or name == "--constraint")
        return
    if name == "--find-links" and urlsplit(value).scheme not in ("http", "https"):
        value = _local(reading, line, value)
    option = f"{name} {value}" if value else name
    if option not in reading.options:
        reading.options.append(option)


def _split_option(line: _Line) -> tuple[str, str]:
    """Its long name and its value, "" for one that has none."""
    head, _, rest = (
        line.text.replace("=", " ", 1).partition(" ") if "=" in line.text.split()[0] else (line.text.partition(" "))
    )
    value = rest.strip().strip("\"'")
    if head in ("-e", "--editable"):
        raise line.refuse("editable installs are not shared by runs.", f"Write {value or './folder'} without {head}.")
    if head in _FLAGS:
        return head, ""
    if len(head) > 2 and head[:2] in ("-r", "-c", "-i", "-f") and head[1] != "-":  # as pip reads `-rother.txt`
        head, value = head[:2], head[2:]
    if head not in _WITH_VALUE or not value:
        known = ", ".join(sorted({*_FLAGS, *_WITH_VALUE.values()}))
        raise line.refuse(f"{head!r} {'needs a value' if head in _WITH_VALUE else 'is not known'}.", f"Known: {known}.")
    return _WITH_VALUE[head], value


def _requirement(reading: _Reading, line: _Line, *, constraint: bool) -> None:
    hashes = _HASH.findall(line.text)
    text = _HASH.sub("", line.text).strip()
    lines = reading.constraints if constraint else reading.requirements
    place = _place_of(text)
    if place is None:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise line.refuse(f"{text!r} is no requirement: {why}.", "Write it like numpy>=1.26.") from None
        if requirement.url is None:
            (reading.bounds if constraint else reading.parsed).append(requirement)
            reading.others |= bool(hashes)
            lines.append(" ".join([str(requirement), *(f"--hash={each}" for each in hashes)]))
            return
        place = requirement.url
    reading.others = True
    if place not in text:
        raise line.refuse(f"{text!r} is no requirement.")
    if urlsplit(place).scheme not in _SCHEMES:
        path, marker = re.match(r"([^;\[]*)(.*)", place, re.DOTALL).groups()  # type: ignore[union-attr]
        text = text.replace(place, _local(reading, line, path.strip()) + marker, 1)
    lines.append(" ".join([text, *(f"--hash={each}" for each in hashes)]))


def _place_of(text: str) -> str | None:
    """The path or URL that a requirement without a name is."""
    named = re.match(r"[A-Za-z0-9][\w.-]*\s*(\[[^]]*\])?\s*@\s*(\S+)", text)
    if named:
        return named.group(2)
    head = re.split(r"\s*;", text)[0]
    is_place = "://" in head or head.startswith((".", "/", "~", "git+", "file:"))
    return text if is_place or head.endswith((".whl", ".tar.gz", ".zip")) or "/" in head else None


def _local(reading: _Reading, line: _Line, text: str) -> str:
    """The address of a file or folder of the package, whose content counts from now on."""
    path = _inside(line, text)
    if not path.exists():
        raise line.refuse(f"there is no file {text!r}.", "Put it into the package.")
    reading.local[str(path.relative_to(line.root))] = path
    return path.as_uri()


def _inside(line: _Line, text: str) -> Path:
    """Raises InvalidValue for what is not below the package's folder."""
    if text.startswith(("/", "~", "file:")) or "://" in text:
        raise line.refuse(f"{text!r} is a place outside the package.", "Put the file into the package: ./wheels/…")
    path = Path(os.path.normpath(line.file.parent / text))
    # Both ways: as it is written, and where links lead.
    inside = path.is_relative_to(line.root) and path.resolve().is_relative_to(line.root.resolve())
    if not inside:
        raise line.refuse(f"{text!r} leads out of the package.", "Put the file into the package.")
    return path


def _named(line: str, places: dict[str, str]) -> str:
    for uri, shown in places.items():
        line = line.replace(uri, f"./{shown}")
    return line


def _digest(path: Path) -> str:
    """Of a file, or of all files below a folder with their names."""
    if path.is_file():
        return _sha256(path)
    total = hashlib.sha256()
    for top, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            file = Path(top, name)
            if file.is_file() and not is_ignored(name):
                total.update(f"{file.relative_to(path)}\0{_sha256(file)}\n".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
