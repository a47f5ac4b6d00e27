"""How many records go into one predict call, found by measuring. Used by the worker; pure: it is given the times.

Starts with one record, so that a first failure or a slow model shows at once, and grows fourfold while calls are over
before they could be measured well. From there on two sizes take turns, one twice the other, on neighbouring records:
the larger one is kept while it is faster by more than noise. The time of a call is bounded, for it is what a crash
costs, and how late progress, commits and stop orders are seen. What was found is looked at again from time to time.
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

LARGEST = 16384
LONGEST_CALL_S = 1.0
"""No call is made longer on purpose."""
QUICK_S = 0.01
"""A shorter call is lost in what surrounds it: more records are better, unmeasured."""
GAIN = 1.05
"""Twice the records have to be this much faster, or they are not worth the longer call and the memory."""
LOOK_AGAIN_S = 20.0
"""After so many seconds in predict, doubled each time, a size is compared anew."""
_LOOK_SELDOM_S = 320.0

_GROWTH = 4
_TRIAL_S = 0.2
_TRIAL_ENOUGH_S = 1.0
_PAIRS = 3
_CLEAR = (0.95, 1.2)
"""A ratio of rates outside of these needs no more pairs."""
_PLAIN = 1.5
"""And above this not even the time."""
_CUT_SHORT = 4
"""So many calls in a row that were shorter than wanted: more records are not read at a time."""
_SLOWED = 8

_FIRST, _GROWING, _COMPARING, _SETTLED = range(4)


class Mark(NamedTuple):
    """A sizer's choice at a moment."""

    size: int
    why: str
    limit: Optional[int]


class BatchSizer:
    """size: of the next call. record_s: seconds that a record takes, smoothed; 0 before the first call. last_s: the
    same of the last call alone. records: how many were called so far. why: of the size, for people.

    pinned: the user's own size. hint: what an earlier run with this model ended with. changed: called when size and why
    have settled anew.
    """

    def __init__(
        self,
        pinned: Optional[int] = None,
        hint: Optional[int] = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.size = pinned or 1
        self.record_s = 0.0
        self.records = 0
        self.last_s = 0.0
        self._weighed = False
        self.why = "pinned" if pinned else "being measured"
        self._adapts = pinned is None
        self._pinned = pinned
        self._changed = changed
        self._state = _FIRST
        self._aim = min(hint, LARGEST) if hint and not pinned else 0
        self._permitted: Optional[int] = None
        self._limit: Optional[int] = None
        self._trial: Optional[_Trial] = None
        self._cut = 0
        self._largest_cut = 0
        self._record_s_then = 0.0
        self._slow = 0
        self._look_in_s = LOOK_AGAIN_S
        self._look_at_s = 0.0
        self._look_up = True
        self._spent_s = 0.0

    @property
    def measured(self) -> bool:
        """Whether the size is worth being remembered: neither the end of what is read at a time nor the agent's bound,
        which may be for a single record, has made it.
        """
        return self._cut < _CUT_SHORT and not self._held_small

    @property
    def shown(self) -> int:
        """The size as calls are made: less than `size` where fewer records are read at a time."""
        return self._largest_cut if self._cut >= _CUT_SHORT else self.size

    @property
    def most(self) -> int:
        """The largest size that memory permits, as far as is known."""
        return max(1, min(LARGEST if self._adapts else self.size, *self._bounds()))

    def permit(self, most: Optional[int]) -> None:
        """The agent's bound: more records at once killed a worker; None for no bound."""
        lifted = self._held_small and (most is None or most > (self._permitted or 0))
        self._permitted = most
        if lifted and self._pinned:
            self.size = min(self._pinned, *self._bounds())
        elif lifted and self._state == _SETTLED:
            self._state = _GROWING
        self._keep_within()

    @property
    def _held_small(self) -> bool:
        """Whether it is the agent's bound that keeps mini-batches from being larger."""
        return self._permitted is not None and 2 * self.size > self._permitted

    def took(self, count: int, seconds: float, weight: Optional[int] = None) -> None:
        """A call with `count` records took this long. weight: their size, where that is what their time hangs on."""
        self.records += count
        self.last_s = seconds / count
        self._smooth(count, seconds)
        if not self._adapts:
            return
        self._spent_s += seconds
        if self._state == _FIRST:
            self._state = _GROWING
            if seconds > QUICK_S:  # much of it was what libraries put off until their first use
                return
        if count < self.size - self.size // 4:
            self._cut_short(count)
            return
        self._cut = 0
        if (weight is None) is self._weighed:  # one is not to be compared with the other
            self._weighed = weight is not None
            if self._trial is not None:
                self._trial = _Trial(self._trial.base, goes_on=self._trial.goes_on)
        if self._state == _GROWING:
            self._grow(seconds)
        elif self._state == _COMPARING:
            self._compare(count, seconds, count if weight is None else weight)
        else:
            self._watch()

    def ran_out(self, count: int) -> None:
        """A call with `count` records, more than one, ran out of memory and has to be made with fewer."""
        self._limit = max(1, count // 2)
        self._keep_within()
        if self._adapts:
            self._settle(min(self.size, self._limit), f"{count:,} ran out of memory")
        else:
            self.why = f"pinned, but {count:,} ran out of memory"
            self._changed()

    def mark(self) -> Mark:
        """What `forgive` goes back to."""
        return Mark(self.size, self.why, self._limit)

    def forgive(self, mark: Mark) -> None:
        """What ran out of memory since was the fault of a single record, not of the size."""
        self._limit = mark.limit
        if self._adapts:
            self._settle(mark.size, mark.why)
        else:
            self.size, self.why = mark.size, mark.why

    def _bounds(self) -> list[int]:
        return [bound for bound in (self._permitted, self._limit, LARGEST) if bound is not None]

    def _keep_within(self) -> None:
        bound = min(self._bounds())
        if self.size > bound:
            self.size = bound
            if self._state == _COMPARING:
                self._settle(bound, "more does not fit into memory")

    def _smooth(self, count: int, seconds: float) -> None:
        each = seconds / count
        if self._state in (_FIRST, _GROWING):
            self.record_s = each
        else:
            self.record_s += 0.3 * (each - self.record_s)

    def _grow(self, seconds: float) -> None:
        if self._aim > self.size:
            wanted = min(self._aim, self.most, max(self.size * _GROWTH, self._aim // 8))
            if wanted > self.size and wanted * self.record_s <= 4 * LONGEST_CALL_S:
                self.size = wanted
                return
        if self._aim and self.size >= min(self._aim, self.most):
            self._settle(self.size, "as an earlier run with this model ended here")
        elif seconds < QUICK_S and self.size < self.most:
            self.size = min(self.most, self.size * _GROWTH)
        elif seconds < QUICK_S:
            self._settle(self.size, "the most there may be")
        else:
            self._try(self.size)

    def _try(self, base: int, *, down: bool = False) -> None:
        """Compares a size with twice as many, if there may be so many."""
        larger = 2 * base
        if not down and larger > self.most:
            self._settle(base, "the most there may be" if self._limit is None else "more does not fit into memory")
        elif not down and larger * self.record_s > LONGEST_CALL_S:
            self._settle(base, f"a call of {larger:,} would take {larger * self.record_s:.1f} s")
        else:
            self._state = _COMPARING
            self._trial = _Trial(base, goes_on=not down)
            self.size = self._trial.next

    def _compare(self, count: int, seconds: float, work: int) -> None:
        trial = self._trial
        assert trial is not None
        trial.add(count, seconds, work)
        faster = trial.verdict()
        if faster is None:
            self.size = min(trial.next, self.most)
            return
        self.record_s = trial.record_s(faster)
        if not faster:
            self._settle(trial.base, f"measured: {trial.base:,} a call; {2 * trial.base:,} was no faster")
        elif trial.goes_on:
            self._try(2 * trial.base)
        else:
            self._settle(2 * trial.base, f"measured: {2 * trial.base:,} a call; {trial.base:,} was slower")

    def _cut_short(self, count: int) -> None:
        """Fewer records than wanted, since no more were read at a time."""
        self._largest_cut = max(count, self._largest_cut) if self._cut else count
        self._cut += 1
        if self._cut >= _CUT_SHORT and self._state in (_GROWING, _COMPARING):
            self._settle(self.size, f"{self._largest_cut:,} is all that is read at a time")
        elif self._state == _SETTLED:
            self._watch()

    def _settle(self, size: int, why: str) -> None:
        self.size, self.why = size, why
        self._state, self._trial = _SETTLED, None
        self._record_s_then, self._slow = self.record_s, 0
        self._look_at_s = self._spent_s + self._look_in_s
        self._look_in_s = min(2 * self._look_in_s, _LOOK_SELDOM_S)
        self._changed()

    def _watch(self) -> None:
        """Settled: looks again when time has passed, or when records take much longer than they did."""
        if self.size > 1 and self.size * self.record_s > 2 * LONGEST_CALL_S:
            fitting = int(LONGEST_CALL_S / self.record_s)
            self._settle(1 << max(0, fitting.bit_length() - 1), "a call may take a second")
            return
        self._slow = self._slow + 1 if not self._weighed and self.record_s > 2 * self._record_s_then else 0
        if self._slow < _SLOWED and self._spent_s < self._look_at_s:
            return
        if self._limit is not None:  # memory may be free by now
            self._limit *= 2
        self._look_up = not self._look_up and self._slow < _SLOWED
        if self.size == 1 or self._look_up:
            self._try(self.size)
        else:
            self._try(self.size // 2, down=True)


class _Trial:
    """base against twice as many, by turns. goes_on: what wins is to be compared with its double next."""

    def __init__(self, base: int, *, goes_on: bool) -> None:
        self.base = base
        self.goes_on = goes_on
        self._turn = -1
        self._records = [0, 0]
        self._work = [0, 0]
        self._seconds = [0.0, 0.0]

    @property
    def next(self) -> int:
        """The size of the next call. The first one of the larger size does not count: memory is made for it."""
        return self.base << self._side()

    def _side(self) -> int:
        """0 or 1, in the order 1, then 0 1 1 0: what grows or shrinks steadily along the records cancels out."""
        return 1 if self._turn < 0 else (0, 1, 1, 0)[self._turn % 4]

    def add(self, count: int, seconds: float, work: int) -> None:
        side = self._side()
        if self._turn >= 0:
            self._records[side] += count
            self._work[side] += work
            self._seconds[side] += seconds
        self._turn += 1

    def record_s(self, larger: bool) -> float:
        """What a record took at one of the two sizes."""
        return self._seconds[larger] / self._records[larger]

    def verdict(self) -> Optional[bool]:
        """Whether the larger size is faster; None while that is not known."""
        if self._turn < 2 or self._turn % 2:
            return None
        small, large = (seconds / max(work, 1) for seconds, work in zip(self._seconds, self._work))
        ratio = small / max(large, 1e-12)
        if ratio > _PLAIN:
            return True
        if sum(self._seconds) < _TRIAL_S:
            return None
        if self._turn < 2 * _PAIRS and sum(self._seconds) < _TRIAL_ENOUGH_S and _CLEAR[0] < ratio < _CLEAR[1]:
            return None
        return ratio > GAIN
