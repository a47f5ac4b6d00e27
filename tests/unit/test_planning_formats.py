"""`format` with every "auto" resolved, from names and first bytes."""

from __future__ import annotations

import gzip

import pytest

from tidemill.domain.errors import InvalidValue
from tidemill.domain.splits import Cut, Layout
from tidemill.planning.formats import Formats, Sample, kind_of_name, resolve
from tidemill.wire.taskfile import FormatSection, ResultSection


def resolved(*samples: tuple[str, bytes], **section: object) -> Formats:
    return resolve(FormatSection(**section), [Sample(name, head) for name, head in samples])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "head", "kind", "cut"),
    [
        ("a.jsonl", b'{"x": 1}\n', "jsonl", Cut.RANGES),
        ("a.ndjson", b"", "jsonl", Cut.RANGES),
        ("part-00000", b'{"x": 1}\n{"x"', "jsonl", Cut.RANGES),
        ("x.json", b'{"x": 1}\n{"x": 2}\n', "jsonl", Cut.RANGES),
        ("a.csv", b"a,b\n", "csv", Cut.RANGES),
        ("a.tsv", b"a\tb\n", "csv", Cut.RANGES),
        ("a.parquet", b"PAR1", "parquet", Cut.GROUPS),
        ("part-0", b"PAR1\x15", "parquet", Cut.GROUPS),
        ("a.txt", b"hello", "text", Cut.RANGES),
        ("a.PNG", b"\x89PNG", "file", Cut.FILES),
        ("dir/scan.nii.gz", b"\x1f\x8b", "file", Cut.FILES),
        ("weights.bin", b"\x00\x01", "file", Cut.FILES),
        ("latin", b"caf\xe9 au lait", "file", Cut.FILES),
    ],
)
def test_types(name: str, head: bytes, kind: str, cut: Cut) -> None:
    found = resolved((name, head))
    assert (found.input.type, found.cut) == (kind, cut)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv.gz", ("csv", "gzip")),
        ("a.jsonl.zst", ("jsonl", "zstd")),
        ("a", (None, "none")),
        ("a.log", (None, "none")),
    ],
)
def test_what_names_tell(name: str, kind: tuple[str | None, str]) -> None:
    found = kind_of_name(name)
    assert (found.type, found.compression) == kind


def test_compression_is_found_by_its_first_bytes() -> None:
    packed = gzip.compress(b"a;b\n1;2\n")
    found = resolved(("a.csv.gz", packed))
    assert (found.input.compression, found.input.delimiter, found.cut) == ("gzip", ";", Cut.WHOLE)
    assert resolved(("a.jsonl", gzip.compress(b'{"x":1}\n'))).input.compression == "gzip"
    assert resolved(("a.jsonl.zst", b"\x28\xb5\x2f\xfdrest")).input.compression == "zstd"
    assert resolved(("x", gzip.compress(b'{"x":1}\n'))).input.type == "jsonl"
    assert resolved(("a.jsonl.gz", b"")).input.compression == "gzip"


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        (b"a,b\n", ","),
        (b"a;b;c\n", ";"),
        (b"a\tb", "\t"),
        (b"a|b|c", "|"),
        (b'"x,y";b\n', ";"),
        (b"one\n", ","),
        (b"", ","),
    ],
)
def test_delimiters_are_read_off_the_first_line(head: bytes, delimiter: str) -> None:
    assert resolved(("a.csv", head)).input.delimiter == delimiter


def test_given_dialects_stay() -> None:
    found = resolved(("a.csv", b"a,b\n"), delimiter="|", quote="'", header=False, encoding="gb18030").input
    assert (found.delimiter, found.quote, found.header, found.encoding) == ("|", "'", False, "gb18030")
    assert resolved(("a.csv", b"a,b\n"), type="tsv").input.delimiter == "\t"


def test_results_follow_the_input() -> None:
    lines, files = resolved(("a.jsonl", b"")), resolved(("a.png", b""))
    assert (lines.result.form, lines.layout) == ("aligned", Layout.PER_OBJECT)
    assert (files.result.form, files.layout) == ("named", Layout.PARTS)
    single = resolved(("a.jsonl", b""), result=ResultSection(layout="single", form="joined"))
    assert (single.result.form, single.layout) == ("joined", Layout.SINGLE)
    assert resolved(("a.png", b""), result=ResultSection(type="text")).result.form == "aligned"


def test_columns_that_are_there() -> None:
    found = resolved(("a.jsonl", b'{"x": 1}\n{"y": 2}\nnot json\n'), columns=["y"], result=ResultSection(keys=["x"]))
    assert (found.input.columns, found.result.keys) == (["y"], ["x"])
    assert resolved(("a.csv", b'"a b",c\n'), columns=["a b"]).input.columns == ["a b"]
    assert resolved(("a.csv", b"5,6\n"), header=False, columns=["1"]).input.columns == ["1"]
    assert resolved(("a.parquet", b"PAR1"), columns=["whatever"]).input.columns == ["whatever"]


@pytest.mark.parametrize(
    ("samples", "section", "told"),
    [
        ([("a.jsonl", b""), ("b.csv", b"")], {}, "'a.jsonl' and 'b.csv'"),
        ([("a.jsonl", b"{"), ("b.jsonl.gz", b"")], {}, "mixes compressions"),
        ([("a.jsonl", b"{}"), ("b.jsonl", b"\x1f\x8b")], {}, r"format\.compression: .*'a.jsonl' and 'b.jsonl'"),
        ([("a.log", b"line\n")], {}, "cannot tell the format of 'a.log'"),
        ([("a", b"")], {}, "cannot tell"),
        ([("a.json", b"[\n1]")], {}, "one JSON document"),
        ([("a.jsonl", b"{}")], {"compression": "gzip"}, "not compressed, not gzip"),
        ([("a.png", b"")], {"compression": "gzip"}, "does not go with file"),
        ([("a.csv.gz", b"\x1f\x8b\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")], {}, "damaged gzip"),
        ([("a.jsonl", b"")], {"delimiter": ";"}, "format.delimiter"),
        ([("a.csv", b"")], {"delimiter": '"'}, "format.delimiter"),
        ([("a.csv", b"")], {"encoding": "klingon"}, "format.encoding"),
        ([("a.jsonl", b"")], {"encoding": "latin-1"}, "csv alone"),
        ([("a.jsonl", b"")], {"columns": []}, "no columns"),
        ([("a.jsonl", b"")], {"columns": ["a", "a"]}, "twice"),
        ([("a.txt", b"")], {"columns": ["a"]}, "text has no columns"),
        ([("a.csv", b"a,b\n")], {"columns": ["c"]}, "It has 'a', 'b'"),
        ([("a.csv", b"a,b\n")], {"result": ResultSection(keys=["c"])}, r"format\.result\.keys"),
        ([("a.csv", b"a,b\n")], {"result": ResultSection(keys=["prediction"])}, "own key"),
        ([("a.png", b"")], {"result": ResultSection(form="joined")}, r"format\.result\.form"),
        ([("a.jsonl", b"")], {"result": ResultSection(form="named")}, r"format\.result\.form"),
        ([("a.png", b"")], {"result": ResultSection(layout="per_object")}, r"format\.result\.layout"),
        ([("a.jsonl", b"")], {"result": ResultSection(type="file")}, r"format\.result\.type"),
        ([("a.jsonl", b"")], {"result": ResultSection(extension=".png")}, r"format\.result\.extension"),
        ([("a.png", b"")], {"result": ResultSection(type="file", keys=["a"])}, r"has no columns"),
        ([("a.png", b"")], {"result": ResultSection(type="file", form="named")}, r"format\.result\.form"),
        ([("a.png", b"")], {"result": ResultSection(type="file", layout="parts")}, r"format\.result\.layout"),
        ([("a.jsonl", b"")], {"result": ResultSection(type="text", form="joined")}, r"format\.result\.form"),
        ([("a.csv", b"a\n")], {"result": ResultSection(type="text", keys=["a"])}, r"format\.result\.keys"),
    ],
)  # fmt: skip
def test_what_is_refused(samples: list[tuple[str, bytes]], section: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidValue, match=told):
        resolved(*samples, **section)


def test_a_type_that_is_given_is_not_doubted() -> None:
    found = resolved(("a.log", b"x"), ("b.csv", b""), type="text")
    assert (found.input.type, found.by_name) == ("text", None)


@pytest.mark.parametrize(
    ("head", "cut"),
    [
        (b'a,b\n1,"x"\n2,"x,y"\n', Cut.RANGES),
        (b'a,b\n1,"two\nlines"\n', Cut.WHOLE),
        (b'a,b\n1,5" disk\n2,x\n', Cut.RANGES),
        (b'a,b\n1,"never closed\n2,x\n', Cut.WHOLE),
        (b'a,b\n1,x\n2,"cut off by the window', Cut.RANGES),
        (b'a,b\r\n1,"x"\r\n', Cut.RANGES),
    ],
)
def test_csv_is_cut_where_no_row_has_more_than_a_line(head: bytes, cut: Cut) -> None:
    found = resolved(("a.csv", head))
    assert found.cut is cut
    assert bool(found.uncut) is (cut is Cut.WHOLE)


@pytest.mark.parametrize(
    ("name", "head", "uncut"),
    [
        ("a.jsonl", b'{"x": 1}\n', "format.split is whole"),
        ("a.parquet", b"PAR1", "format.split is whole"),
        ("a.csv", b"a\n", "format.split is whole"),
    ],
)
def test_nothing_is_cut_where_the_task_says_so(name: str, head: bytes, uncut: str) -> None:
    found = resolved((name, head), split="whole")
    assert (found.cut, found.uncut) == (Cut.WHOLE, uncut)


def test_compressed_objects_say_why_they_are_not_cut() -> None:
    assert resolved(("a.jsonl.zst", b"")).uncut == "zstd cannot be cut"
