"""The mini-batch size finds the knee of a simulated model, quickly, and follows what changes."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tidemill_runtime.batching import LARGEST, LONGEST_CALL_S, BatchSizer

Cost = Callable[[int], float]


class Simulated:
    """A model whose calls cost what `cost` says, give or take some noise."""

    def __init__(self, cost: Cost, *, noise: float = 0.02, block: int = 10**9, hint: int | None = None) -> None:
        self.cost = cost
        self.block = block
        self.settled = 0
        self.sizer = BatchSizer(hint=hint, changed=self._changed)
        self.calls: list[tuple[int, float]] = []
        self._noise = noise
        self._random = random.Random(7)

    def _changed(self) -> None:
        self.settled += 1

    def call(self) -> None:
        left = self.block
        while left > 0:
            count = min(self.sizer.size, left)
            seconds = self.cost(count) * self._random.uniform(1 - self._noise, 1 + self._noise)
            self.sizer.took(count, seconds)
            self.calls.append((count, seconds))
            if self.block == 10**9:
                return
            left -= count

    def settle(self, times: int = 1) -> int:
        wanted = self.settled + times
        while self.settled < wanted:
            self.call()
        return self.sizer.size

    @property
    def spent_s(self) -> float:
        return sum(seconds for _, seconds in self.calls)


def linear(call_s: float, record_s: float) -> Cost:
    return lambda count: call_s + count * record_s


@pytest.mark.parametrize(
    ("cost", "sizes"),
    [
        (linear(0.0, 1.0), [1]),  # each record takes a second, and nothing is gained
        (linear(0.0, 0.02), [1]),
        (linear(0.02, 0.0001), [1024, 2048, 4096]),  # what a call costs is shared by more
        (lambda count: max(0.02, count * 0.0002), [64, 128]),  # a device that is full with 100
        (linear(0.00005, 0.0000001), [LARGEST]),  # next to nothing
        (lambda count: count * (0.00001 if count <= 1024 else 0.00002), [1024]),  # it falls out of the cache
    ],
)
def test_it_settles_at_the_knee(cost: Cost, sizes: list[int]) -> None:
    model = Simulated(cost)
    assert model.settle() in sizes


def test_it_is_the_smallest_size_near_the_best_rate() -> None:
    cost = linear(0.02, 0.0001)
    size = Simulated(cost).settle()
    best = max(count / cost(count) for count in (2**power for power in range(14)) if cost(count) <= LONGEST_CALL_S)
    assert size / cost(size) > 0.9 * best


def test_finding_it_costs_a_cheap_model_nothing() -> None:
    model = Simulated(linear(0.00005, 0.000001))
    model.settle()
    assert len(model.calls) < 12
    assert model.spent_s < 0.1


@pytest.mark.parametrize("call_s", [0.002, 0.02, 0.2])
def test_finding_it_costs_little(call_s: float) -> None:
    """What it took, against the time that the same records take at the size that was found."""
    cost = linear(call_s, call_s / 50)
    model = Simulated(cost)
    size = model.settle()
    records = sum(count for count, _ in model.calls)
    assert model.spent_s - records * cost(size) / size < 20 * call_s + 0.5


def test_the_first_call_may_be_slow() -> None:
    sizer = BatchSizer()
    sizer.took(1, 3.0)
    for _ in range(8):
        sizer.took(sizer.size, 0.000001 * sizer.size)
    assert sizer.size == LARGEST
    assert sizer.record_s == pytest.approx(0.000001)


def test_no_call_is_longer_than_a_second_on_purpose() -> None:
    model = Simulated(lambda count: 0.3 + 0.01 * count)
    model.settle(4)
    assert max(seconds for _, seconds in model.calls) < 1.1 * LONGEST_CALL_S
    assert model.sizer.size >= 16


def test_blocks_end_where_they_do() -> None:
    """More records than are read at a time cannot be had; that is found out and said."""
    model = Simulated(linear(0.02, 0.0002), block=430)
    model.settle()
    assert model.sizer.size >= 256
    tiny = Simulated(linear(0.001, 0.0), block=3)
    tiny.settle()
    assert tiny.sizer.why == "3 is all that is read at a time"


def test_what_was_found_is_told() -> None:
    model = Simulated(lambda count: max(0.02, count * 0.0002))
    size = model.settle()
    assert model.sizer.why == f"measured: {size:,} a call; {2 * size:,} was no faster"


def test_an_earlier_run_gives_the_start() -> None:
    model = Simulated(lambda count: max(0.02, count * 0.0002), hint=128)
    assert model.settle() == 128
    assert len(model.calls) < 6
    model.settle()  # it looks again all the same
    assert model.sizer.size in (64, 128)


def test_a_hint_of_other_times_is_no_trap() -> None:
    model = Simulated(linear(0.0, 0.5), hint=16384)
    model.settle()
    assert model.sizer.size <= 2
    assert max(seconds for _, seconds in model.calls) < 4


def test_slower_records_are_noticed() -> None:
    model = Simulated(linear(0.001, 0.0001))
    before = model.settle()
    model.cost = linear(0.1, 0.05)
    for _ in range(40):
        model.call()
    assert model.sizer.size < before
    assert max(seconds for _, seconds in model.calls[-5:]) < 2.5


def test_faster_records_are_noticed() -> None:
    model = Simulated(linear(0.1, 0.05))
    model.settle()
    model.cost = linear(0.1, 0.0001)
    model.settle(4)
    assert model.sizer.size > 256


def test_a_pinned_size_stays() -> None:
    sizer = BatchSizer(pinned=100, hint=7)
    for _ in range(50):
        sizer.took(100, 3.0)
        assert sizer.size == 100


def test_out_of_memory_halves_and_tries_again_much_later() -> None:
    model = Simulated(linear(0.02, 0.0001))
    while model.sizer.size < 512:
        model.call()
    model.sizer.ran_out(512)
    assert model.sizer.size <= 256
    assert model.sizer.why == "512 ran out of memory"
    first = len(model.calls)
    while not any(count > 256 for count, _ in model.calls[first:]):
        model.call()
    assert sum(seconds for _, seconds in model.calls[first:]) > 20


def test_out_of_memory_goes_over_a_pinned_size() -> None:
    sizer = BatchSizer(pinned=100)
    sizer.ran_out(100)
    assert sizer.size == 50
    assert sizer.why == "pinned, but 100 ran out of memory"


def test_the_agents_bound_holds_while_it_holds() -> None:
    sizer = BatchSizer()
    sizer.permit(8)
    for _ in range(20):
        sizer.took(sizer.size, 0.000001)
    assert sizer.size == 8
    assert not sizer.measured


def test_a_bound_that_is_lifted_leaves_nothing_behind() -> None:
    sizer = BatchSizer(hint=512)
    sizer.permit(4)
    for _ in range(20):
        sizer.took(sizer.size, 0.000001)
    assert sizer.size == 4
    sizer.permit(None)
    for _ in range(20):
        sizer.took(sizer.size, 0.000001)
    assert sizer.size == 512
    assert sizer.measured


def test_a_pinned_size_is_back_when_the_bound_is_lifted() -> None:
    sizer = BatchSizer(pinned=100)
    sizer.permit(4)
    assert sizer.size == 4
    sizer.permit(60)
    assert sizer.size == 60
    sizer.permit(None)
    assert sizer.size == 100
