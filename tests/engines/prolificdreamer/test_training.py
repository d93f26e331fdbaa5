"""Long runs of any stage: kept, gone on with, undone where a step gives no numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from engines.prolificdreamer.training import MOST_ROLLBACKS, Diary, Keeper, Pulse, train
from studio.errors import Cancelled, EngineFailed, StoreUnavailable
from tests.engines.fake_context import Crash, FakeContext


class Counter:
    """Adds the step to a number; gives none at chosen steps while its pace is above a limit."""

    name, title = "counter", "counter"

    def __init__(self, steps: int = 10, *, bad: int = -1, limit: float = 0.5) -> None:
        self.steps, self.bad, self.limit = steps, bad, limit
        self.value, self.pace, self.done = 0.0, 1.0, []

    def step(self, index: int) -> dict[str, float]:
        self.done.append(index)
        self.value += index * self.pace
        if index == self.bad and self.pace > self.limit:
            self.value = math.nan
        return {"gradient": 1.0, "low": 20.0, "high": 980.0}

    def healthy(self) -> bool:
        return math.isfinite(self.value)

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "pace": self.pace}

    def load(self, state: dict[str, Any]) -> None:
        self.value, self.pace = state["value"], state["pace"]


def keeper(ctx: FakeContext, every: int = 4) -> Keeper:
    def keep(done: int, state: dict[str, Any], diary: Diary) -> dict[str, Any]:
        return {"done": done, "stage": state, "diary": diary.state()}

    return Keeper(ctx, Pulse(2, every), "Test", 100, 200, keep, lambda index, diary: index)


def resumed(ctx: FakeContext, stage: Counter) -> tuple[int, Diary]:
    _, kept = ctx.resume()
    stage.load(kept["stage"])
    return kept["done"], Diary.restored(kept["diary"])


def test_a_run_tells_where_it_is_and_keeps_itself():
    ctx, stage, diary = FakeContext(), Counter(), Diary()
    train(stage, keeper(ctx), 0, diary)
    assert stage.value == 45
    assert [step for step, _, _ in ctx.reports] == list(range(100, 111))
    assert "step 10 of 10, t 20 to 980, gradient 1" in ctx.reports[-1][2]
    assert ctx.newest[0] == 110
    assert ctx.previews == [2, 4, 6, 8, 10]
    assert [row["step"] for row in diary.rows] == list(range(10))


@pytest.mark.parametrize("crash_at", range(1, 11))
def test_a_killed_run_goes_on(crash_at: int):
    ctx, stage = FakeContext(crash_at=crash_at), Counter()
    with pytest.raises(Crash):
        train(stage, keeper(ctx), 0, Diary())
    following, again = ctx.again(), Counter()
    start, diary = resumed(following, again) if following.newest else (0, Diary())
    train(again, keeper(following), start, diary)
    assert again.value == 45
    assert [row["step"] for row in diary.rows] == list(range(10))
    assert start == (crash_at - 1) // 4 * 4


def test_a_cancelled_run_is_kept_where_it_stands():
    ctx, stage = FakeContext(stop_at=7), Counter()
    with pytest.raises(Cancelled):
        train(stage, keeper(ctx), 0, Diary())
    assert ctx.newest[0] == 106
    again = Counter()
    start, diary = resumed(ctx.again(), again)
    train(again, keeper(ctx.again()), start, diary)
    assert again.value == 45
    assert again.done == [6, 7, 8, 9]


def test_whoever_has_enough_gets_what_there_is():
    ctx, stage = FakeContext(enough_at=6), Counter()
    train(stage, keeper(ctx), 0, Diary())
    assert stage.done == [0, 1, 2, 3, 4, 5]
    assert ctx.newest[0] == 106
    again = Counter()
    start, diary = resumed(ctx.again(), again)
    train(again, keeper(FakeContext(enough_at=0)), start, diary)
    assert again.value == stage.value


def test_a_step_without_numbers_is_undone_at_half_the_rates():
    ctx, stage, diary = FakeContext(), Counter(bad=6, limit=0.3), Diary()
    train(stage, keeper(ctx), 0, diary)
    assert stage.pace == 0.25
    assert diary.rollbacks == 2
    assert stage.done == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6, 7, 8, 9]
    assert stage.value == 6 + 0.25 * sum(range(4, 10))
    assert "went back to step 4" in diary.notes[0]
    told = [message for _, _, message in ctx.reports if "went back" in message]
    assert len(told) == 2, "whoever watches hears of it when it happens"
    assert [row["step"] for row in diary.rows] == list(range(10))


def test_a_run_that_never_recovers_says_so():
    with pytest.raises(EngineFailed, match="gave no numbers") as caught:
        train(Counter(bad=6, limit=0.0), keeper(FakeContext()), 0, Diary())
    assert "rates" in caught.value.remedy
    assert str(MOST_ROLLBACKS) in caught.value.message


def test_a_full_disk_leaves_a_run_that_goes_on(monkeypatch: pytest.MonkeyPatch):
    ctx, stage = FakeContext(), Counter()

    def full(step: int, state: dict[str, Any]) -> None:
        if step == 108:
            raise StoreUnavailable("The disk is full.", "Free some space.")
        FakeContext.checkpoint(ctx, step, state)

    monkeypatch.setattr(ctx, "checkpoint", full)
    with pytest.raises(StoreUnavailable):
        train(stage, keeper(ctx), 0, Diary())
    again = Counter()
    start, diary = resumed(ctx.again(), again)
    train(again, keeper(ctx.again()), start, diary)
    assert start == 4
    assert again.value == 45


def test_the_diary_stays_short():
    diary = Diary()
    for index in range(5000):
        diary.write(index, {"gradient": 1.0})
    assert len(diary.rows) <= 401
    assert diary.rows[0]["step"] == 0
    assert diary.rows[-1]["step"] > 4900
