"""What a window holds, and how long readers of several speeds wait for each other: simulated, on a clock of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from selfsup.pipelines.data.shared_window import AHEAD, LOST_AFTER, MAX_WAIT, SLACK, StepWindow

TICK = 0.01  # seconds
LENGTH = 20  # steps of a window, which takes ten seconds
PACE = 0.5  # seconds a step
LOOK = 3 * TICK


@dataclass
class Reader:
    """It reads from time `since` on, `pace` seconds a step, of which `at` is the first; at `until` it is gone."""

    name: str
    pace: float = PACE
    at: int = 0
    since: float = 0.0
    until: float = 1e9
    shared: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    waited: float = 0.0
    done: float | None = None  # when it will have worked through the step before
    given: bool = False  # whether the window has accepted what it asked for

    def live(self, window: StepWindow[int], now: float) -> None:
        """Take what is given, or else make it at once; and ask for the next step."""
        if self.done is None:
            self.done, self.given = now, window.request(self.name, self.at, None, now)
        if now < self.done - TICK / 2:
            return
        if self.given and window.is_waiting(self.name, self.at):
            step = window.give(self.name)
            if step is None:
                self.waited += TICK
                return
            assert step == self.at
            self.shared.append(step)
        else:
            self.alone.append(self.at)
        self.at, self.done = self.at + 1, now + self.pace
        self.given = window.request(self.name, self.at, self.pace, now)


def simulate(readers: Sequence[Reader], steps: int, *, peers: int = 1) -> int:
    """For the time of so many steps; nothing takes time but the readers. How many were made for all of them."""
    window: StepWindow[int] = StepWindow(readers[0].at, LENGTH, peers)
    first, made, since = [reader.at for reader in readers], 0, 0.0
    for tick in range(round(steps * PACE / TICK)):
        now = tick * TICK
        while window.make_room(since, now):
            window.push(window.high)
            made, since = made + 1, now
        since = now
        for reader in readers:
            if reader.since <= now < reader.until:
                reader.live(window, now)
    for reader, start in zip(readers, first, strict=True):
        assert sorted(reader.shared + reader.alone) == list(range(start, reader.at))
    return made


def test_a_single_reader_waits_for_nobody_and_little_is_made_ahead() -> None:
    reader = Reader("a")
    made = simulate([reader], 200)
    assert reader.waited <= LOOK
    assert reader.alone == []
    assert len(reader.shared) == 200
    assert made <= len(reader.shared) + AHEAD + 1


def test_equals_share_every_step() -> None:
    readers = [Reader(name) for name in "abc"]
    made = simulate(readers, 200, peers=3)
    assert [reader.alone for reader in readers] == [[], [], []]
    assert made <= 200 + AHEAD + 1


@pytest.mark.parametrize("late", [0.9, 1.7], ids=["in the first window", "in the second"])
def test_a_peer_that_is_late_by_less_than_two_windows_still_shares_every_step(late: float) -> None:
    """A window is 2 seconds. The first reader has gone through one, and waits for what is left of the second."""
    window = LENGTH * PACE
    on_time, behind = Reader("a"), Reader("b", since=late * window)
    simulate([on_time, behind], 600, peers=2)
    assert on_time.alone == behind.alone == []
    assert on_time.waited == pytest.approx(max(0.0, late - 1) * window, abs=LOOK + PACE)


def test_a_peer_that_never_comes_costs_a_window_once() -> None:
    reader = Reader("a")
    simulate([reader], 600, peers=2)
    assert reader.waited == pytest.approx(LENGTH * PACE, abs=LOOK)
    assert reader.alone == []


def test_who_is_later_than_that_reads_alone_as_long_as_it_is_no_faster() -> None:
    on_time, behind = Reader("a"), Reader("b", since=5 * LENGTH * PACE)
    simulate([on_time, behind], 600, peers=2)
    assert on_time.alone == behind.shared == []
    assert on_time.waited == pytest.approx(LENGTH * PACE, abs=LOOK)


def test_a_slow_reader_holds_others_back_by_a_window_and_then_reads_alone() -> None:
    fast, slow = Reader("a"), Reader("b", pace=2 * PACE)
    made = simulate([fast, slow], 800)
    assert fast.alone == []
    assert fast.waited <= LENGTH * PACE * (1 + 2 * SLACK) + LOOK
    assert len(slow.alone) > len(slow.shared) > 0
    assert slow.alone == list(range(slow.alone[0], slow.at))
    assert made == pytest.approx(len(fast.shared), abs=AHEAD + 1)


def test_a_reader_that_is_a_little_slower_is_waited_for_all_the_time() -> None:
    """By five per cent, which is less than the slack: from step 400 on the faster one would leave the window."""
    fast, slow = Reader("a"), Reader("b", pace=1.05 * PACE)
    simulate([fast, slow], 700)
    assert fast.alone == slow.alone == []
    assert fast.waited <= 700 * PACE * SLACK


def test_the_one_that_is_faster_than_most_goes_on_alone() -> None:
    fast, *slow = [Reader("a"), *(Reader(name, pace=3 * PACE) for name in "bcd")]
    made = simulate([fast, *slow], 800)
    assert [reader.alone for reader in slow] == [[], [], []]
    assert [reader.waited for reader in slow] == pytest.approx([0, 0, 0], abs=LOOK)
    assert fast.waited <= LENGTH * PACE * (1 + SLACK) + LOOK
    assert fast.alone == list(range(fast.alone[0], fast.at))
    assert made <= slow[0].at + LENGTH


def test_who_catches_up_shares_again() -> None:
    """The first is 110 steps ahead by then, and makes two in the time of three; the last 20 to 40 are in the window."""
    first, second = Reader("a", at=100), Reader("b", pace=PACE / 1.5, since=10 * PACE)
    simulate([first, second], 800)
    met = second.shared[0]
    assert 3 * (110 - 2 * LENGTH) <= met <= 3 * 110
    assert second.alone == list(range(met))


@pytest.mark.parametrize("apart", [-15, 15])
def test_readers_less_than_a_window_apart_come_together(apart: int) -> None:
    """As runs do that are resumed at different checkpoints, or that have lost their hub."""
    one, other = Reader("a", at=100), Reader("b", at=100 + apart, since=TICK)
    simulate([one, other], 600)
    assert one.waited + other.waited <= abs(apart) * PACE + LENGTH * PACE * SLACK
    assert len(one.alone) + len(other.alone) <= abs(apart)
    assert one.shared[-1] == pytest.approx(other.shared[-1], abs=LENGTH)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_reader_that_dies_costs_the_others_no_more_than_a_window(ahead: bool) -> None:
    one, dead = Reader("a"), Reader("b", pace=PACE * (0.9 if ahead else 1.1), until=50)
    simulate([one, dead], 600)
    assert one.waited <= LENGTH * PACE * (1 + 2 * SLACK) + 50 * SLACK
    assert one.shared[-1] == one.at - 1


def test_nobody_is_held_back_for_longer_than_half_a_minute() -> None:
    fast, slow = Reader("a", pace=4.0), Reader("b", pace=40.0)
    simulate([fast, slow], 600)
    assert fast.waited <= MAX_WAIT * (1 + 2 * SLACK) + LOOK


def test_a_window_is_empty_once_its_readers_have_left_or_have_long_been_silent() -> None:
    window: StepWindow[int] = StepWindow(0, LENGTH, 1)
    assert window.is_empty(0.0)
    assert window.request("a", 0, None, 0.0)
    assert window.request("b", 0, None, 0.0)
    assert not window.is_empty(LOST_AFTER - 1)
    window.leave("a")
    assert not window.is_empty(LOST_AFTER - 1)
    assert window.is_empty(LOST_AFTER + 1)


def test_no_step_is_asked_to_be_made_for_nobody() -> None:
    window: StepWindow[int] = StepWindow(0, LENGTH, 1)
    assert not window.make_room(0.0, 0.0)
    window.request("a", 0, None, 0.0)
    assert window.make_room(0.0, 0.0)
    window.leave("a")
    assert not window.make_room(0.0, 0.0)
