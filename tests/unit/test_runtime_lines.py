"""Any cut of any bytes into ranges yields each line exactly once, whatever the size of blocks and lines."""

from __future__ import annotations

import pytest

from tidemill_runtime.codec.lines import LineBlocks, LongLine

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

PIECES = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"x" * 9, b"\xff", b'"', "ü".encode()]), max_size=60)


class Bytes:
    """A source of bytes that hands out a few at a time."""

    def __init__(self, data: bytes, at: int, step: int) -> None:
        self.data, self.at, self.step = data, at, step

    def readinto(self, buffer: memoryview) -> int:
        piece = self.data[self.at : self.at + min(self.step, len(buffer))]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)

    def check(self) -> None: ...

    def close(self) -> None: ...


def read(data: bytes, start: int, stop: int, block: int, step: int, longest: int = 1000) -> list[tuple[int, bytes]]:
    """(offset, line) of the range's lines; an over-long line is (offset, b"!")."""
    partial = start > 0
    position = start - partial
    found = []
    for each in LineBlocks(
        Bytes(data, position, step),
        position=position,
        stop=stop if stop < len(data) else None,
        partial=partial,
        longest=longest,
        block_bytes=block,
    ):
        if isinstance(each, LongLine):
            found.append((each.begin, b"!"))
            continue
        at = each.begin
        for line in split(bytes(each.data)):
            found.append((at, line))
            at += len(line)
        assert at == each.end
    return found


def split(data: bytes) -> list[bytes]:
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


@hypothesis.given(
    pieces=PIECES,
    cuts=st.lists(st.integers(0, 100), max_size=6),
    block=st.integers(1, 40),
    step=st.integers(1, 40),
)
def test_each_line_is_in_one_range(pieces: list[bytes], cuts: list[int], block: int, step: int) -> None:
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found = []
    for start, stop in zip(edges[:-1], edges[1:]):  # noqa: B905, RUF007 (Python 3.9)
        found += read(data, start, stop, block, step)
    wanted, at = [], 0
    for line in split(data):
        wanted.append((at, line))
        at += len(line)
    assert found == wanted


@hypothesis.given(
    pieces=PIECES,
    cut=st.integers(1, 100),
    block=st.integers(1, 40),
    step=st.integers(1, 40),
    longest=st.integers(1, 12),
)
def test_over_long_lines_are_passed_over_once(
    pieces: list[bytes], cut: int, block: int, step: int, longest: int
) -> None:
    data = b"".join(pieces)
    cut = min(cut, len(data))
    found = read(data, 0, cut, block, step, longest) + (read(data, cut, len(data), block, step, longest) if cut else [])
    at = 0
    rest = iter(found)
    for line in split(data):
        offset, seen = next(rest)
        assert offset == at
        assert seen == line or (seen == b"!" and len(line.rstrip(b"\n")) > longest)
        at += len(line)
    assert list(rest) == []


def test_what_is_given_back_comes_again_with_more() -> None:
    data = b"".join(b"%03d\n" % number for number in range(30))
    blocks = LineBlocks(Bytes(data, 0, 7), position=0, longest=1000, block_bytes=8)
    found = []
    for block in blocks:
        assert not isinstance(block, LongLine)
        lines = split(bytes(block.data))
        found.append(len(lines))
        if len(lines) < 5 and not blocks.at_end:
            blocks.give_back(block.begin)
    assert sum(number for number in found if number >= 5) + found[-1] * (found[-1] < 5) == 30
    assert max(found) < 12


def test_a_record_that_never_ends_is_too_long() -> None:
    data = b"".join(b"%03d\n" % number for number in range(30))
    blocks = LineBlocks(Bytes(data, 0, 7), position=0, longest=20, block_bytes=8)
    found = []
    for block in blocks:
        if isinstance(block, LongLine):
            found.append((block.begin, block.end, block.unclosed))
        elif not blocks.at_end:
            blocks.give_back(block.begin)
    assert found[0] == (0, 4, True)  # its first line is passed over alone: what follows may be in order
    assert len(found) >= 20


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert read(b"\xef\xbb\xbfa\nb", 0, 6, 4, 2) == [(3, b"a\n"), (5, b"b")]
    assert read(b"\xef\xbb\xbf", 0, 3, 4, 2) == []
    assert read(b"\xef\xbb", 0, 2, 4, 2) == [(0, b"\xef\xbb")]


def test_blocks_are_cut_again_where_they_were() -> None:
    data = b"".join(b"%03d\n" % number for number in range(50))
    blocks = list(LineBlocks(Bytes(data, 0, 64), position=0, longest=100, block_bytes=64, forced={40: 120, 120: 124}))
    edges = [(each.begin, each.end) for each in blocks]
    assert (40, 120) in edges
    assert (120, 124) in edges
    assert b"".join(bytes(each.data) for each in blocks if not isinstance(each, LongLine))[-4:] == b"049\n"
    assert [begin for begin, _ in edges[1:]] == [end for _, end in edges[:-1]]
