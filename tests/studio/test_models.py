"""The model cache: loaded once, within budgets, never evicting what is borrowed; random orders against invariants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.contract import ModelKey
from studio.errors import Cancelled, OutOfMemory
from studio.measure import is_out_of_memory, moved, storages
from studio.models import ModelCache

GPU = "cuda:7"


def key(name: str, device: str = "cpu") -> ModelKey:
    return ModelKey("pocket", "house/model", "r1", name, device=device)


@dataclass
class Storage:
    address: int
    size: int

    def data_ptr(self) -> int:
        return self.address

    def nbytes(self) -> int:
        return self.size


@dataclass
class Weights:
    """A component of a given size that remembers where it is and whether it was dropped."""

    size: int
    device: str = "cpu"
    moves: list[str] = field(default_factory=list)
    address: int = 0

    def parameters(self) -> Iterator[Weights]:
        yield self

    def buffers(self) -> Iterator[Weights]:
        return iter(())

    def untyped_storage(self) -> Storage:
        return Storage(self.address or id(self), self.size)

    def to(self, device: str) -> Weights:
        if device != self.device:
            self.moves.append(device)
        self.device = device
        return self


def cache(ram: int = 100, vram: int = 0, free: Callable[[str], int] = lambda _: 1000) -> ModelCache:
    return ModelCache(ram, vram, free, reserve=1, collect=lambda _: None)


def use(models: ModelCache, name: str, size: int, device: str = "cpu") -> Weights:
    with models.borrow(key(name, device), lambda: Weights(size)) as value:
        return value


def held(models: ModelCache) -> set[str]:
    return {fact.key.split("/")[2].split(":")[0] for fact in models.stats().models}


def test_a_component_is_loaded_once_and_shared():
    models = cache()
    assert use(models, "a", 10) is use(models, "a", 10)
    assert (models.stats().loads, models.stats().hits) == (1, 1)


def test_two_who_ask_at_once_get_the_same_load():
    models, begun, go = cache(), threading.Event(), threading.Event()
    loads = []

    def load() -> Weights:
        loads.append(1)
        begun.set()
        assert go.wait(10)
        return Weights(10)

    def borrow() -> Weights:
        with models.borrow(key("a"), load) as value:
            return value

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(borrow)
        assert begun.wait(10)
        others = [pool.submit(borrow) for _ in range(3)]
        go.set()
        values = {id(item.result(10)) for item in [first, *others]}
    assert len(values) == len(loads) == 1


def test_a_failing_load_raises_for_all_who_wait_and_leaves_nothing():
    models, begun, go = cache(), threading.Event(), threading.Event()

    def load() -> Weights:
        begun.set()
        assert go.wait(10)
        raise ValueError("torn file")

    def borrow() -> None:
        with models.borrow(key("a"), load):
            raise AssertionError("nothing was loaded")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(borrow)
        assert begun.wait(10)
        entry = models._entries[key("a")]
        second = pool.submit(borrow)
        # The second waits on the entry of the first before that one may fail.
        until_waiting(models)
        go.set()
        for item in (first, second):
            with pytest.raises(ValueError, match="torn file"):
                item.result(10)
    assert entry.value is None
    assert models.stats().models == ()
    assert models.stats().ram_bytes == 0
    assert use(models, "a", 5).size == 5


def until_waiting(models: ModelCache) -> None:
    while not models._changed._waiters:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)


def test_a_cancelled_load_does_not_cancel_others():
    models, begun, go = cache(), threading.Event(), threading.Event()

    def cancelled() -> Weights:
        begun.set()
        assert go.wait(10)
        raise Cancelled("stop")

    def borrow(load: Callable[[], Any]) -> Weights:
        with models.borrow(key("a"), load) as value:
            return value

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(borrow, cancelled)
        assert begun.wait(10)
        second = pool.submit(borrow, lambda: Weights(3))
        until_waiting(models)
        go.set()
        with pytest.raises(Cancelled):
            first.result(10)
        assert second.result(10).size == 3


def test_the_least_recently_used_makes_way():
    models = cache(ram=30)
    for name in "abc":
        use(models, name, 10)
    use(models, "a", 10)
    use(models, "d", 10)
    assert held(models) == {"a", "c", "d"}
    assert models.stats().evictions == 1


def test_what_is_borrowed_stays_even_beyond_the_budget():
    models = cache(ram=15)
    with models.borrow(key("a"), lambda: Weights(10)), models.borrow(key("b"), lambda: Weights(10)):
        assert held(models) == {"a", "b"}
        assert models.stats().ram_bytes == 20
    assert models.stats().ram_bytes <= 15


def test_a_load_beyond_the_budget_needs_a_device_that_really_has_room():
    models = cache(ram=15, free=lambda _: 0)
    with models.borrow(key("a"), lambda: Weights(10)):
        with pytest.raises(OutOfMemory, match="b of house/model needs"):
            with models.borrow(key("b"), lambda: Weights(10)):
                raise AssertionError("there was no room")
        assert held(models) == {"a"}


def test_a_known_size_makes_room_before_the_load():
    models, seen = cache(ram=20), []
    use(models, "big", 20)
    use(models, "small", 5)  # evicts big
    with models.borrow(key("big"), lambda: seen.append(held(models)) or Weights(20)):
        assert seen == [set()]


def test_gpu_components_go_to_ram_first_and_come_back():
    models = cache(ram=100, vram=20)
    first = use(models, "a", 15, GPU)
    use(models, "b", 15, GPU)
    assert first.device == "cpu"
    assert models.stats().ram_bytes == 15
    assert use(models, "a", 15, GPU) is first
    assert first.moves == [GPU, "cpu", GPU]
    stats = models.stats()
    assert (stats.offloads, stats.reloads, stats.loads, stats.evictions) == (2, 1, 2, 0)


def test_what_does_not_fit_ram_either_is_dropped():
    models = cache(ram=10, vram=20)
    use(models, "a", 15, GPU)
    use(models, "b", 15, GPU)
    assert held(models) == {"b"}
    assert models.stats().evictions == 1


def test_a_full_device_evicts_everything_and_tries_once_more():
    models, tries = cache(), []
    use(models, "old", 10)

    def load() -> Weights:
        tries.append(held(models))
        if len(tries) == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return Weights(10)

    with models.borrow(key("new"), load):
        assert tries == [{"old"}, set()]


def test_other_errors_are_not_tried_again():
    tries = []

    def load() -> Weights:
        tries.append(1)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError), cache().borrow(key("a"), load):
        pass
    assert tries == [1]


def test_warm_names_need_all_their_components():
    models = cache(ram=20)
    use(models, "a", 10)
    use(models, "b", 10)
    models.remember("engine/one", {key("a"), key("b")})
    models.remember("engine/two", {key("b")})
    assert models.warm_keys() == ["engine/one", "engine/two"]
    use(models, "c", 10)
    assert models.warm_keys() == ["engine/two"]


def test_evict_all_spares_the_borrowed():
    models = cache()
    use(models, "a", 10)
    with models.borrow(key("b"), lambda: Weights(5)):
        assert models.evict_all() == 10
        assert held(models) == {"b"}
    assert models.evict_all() == 5


def test_storages_count_once():
    tied = torch.nn.Linear(8, 8, bias=False)
    twin = torch.nn.Linear(8, 8, bias=False)
    twin.weight = tied.weight
    both = torch.nn.ModuleDict({"a": tied, "b": twin})
    assert sum(storages(both).values()) == 8 * 8 * 4
    assert sum(storages([tied, twin, torch.zeros(4)]).values()) == 8 * 8 * 4 + 16
    assert storages({"text": "no tensors"}) == {}
    assert storages(torch.nn.Linear(4, 4, device="meta")) == {}
    assert set(moved({"m": tied, "n": (1, "x")}, "cpu")) == {"m", "n"}


def test_two_components_that_share_a_storage_count_it_once():
    models = cache()
    with models.borrow(key("a"), lambda: Weights(10, address=77)):
        with models.borrow(key("b"), lambda: Weights(10, address=77)):
            assert models.stats().ram_bytes == 10


def test_out_of_memory_is_recognised():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


NAMES, DEVICES = "abcd", ("cpu", GPU)
SIZES = {"a": 5, "b": 10, "c": 20, "d": 35}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["borrow", "borrow", "borrow", "release", "fail", "evict"]),
        st.sampled_from(NAMES),
        st.sampled_from(DEVICES),
    ),
    max_size=30,
)


def check(models: ModelCache, mine: dict[ModelKey, list[Weights]]) -> None:
    """Whatever is borrowed is here, whole and on its device; whatever is over the budget is borrowed."""
    stats = models.stats()
    for name, values in mine.items():
        for value in values:
            assert models._entries[name].value is value
            assert value.device == name.device
    borrowed = {
        place: sum(e.value.size for e in models._entries.values() if e.borrowed and e.place == place)
        for place in DEVICES
    }
    assert stats.ram_bytes <= max(stats.ram_budget, borrowed["cpu"])
    assert stats.vram_bytes <= max(stats.vram_budget, borrowed[GPU])


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_random_orders_in_one_thread(steps: list[tuple[str, str, str]]):
    models, stacks, mine = cache(ram=40, vram=30), [], {}
    for action, name, device in steps:
        wanted = key(name, device)
        if action == "borrow":
            stack = ExitStack()
            value = stack.enter_context(models.borrow(wanted, lambda name=name: Weights(SIZES[name])))
            stacks.append((stack, wanted))
            mine.setdefault(wanted, []).append(value)
        elif action == "release" and stacks:
            stack, released = stacks.pop(0)
            mine[released].pop()
            stack.close()
        elif action == "fail" and wanted not in models._entries:
            with pytest.raises(OSError, match="unreadable"), models.borrow(wanted, unreadable):
                pass
            assert wanted not in models._entries
        elif action == "evict":
            models.evict_all()
            assert all(entry.borrowed for entry in models._entries.values())
        check(models, mine)
    for stack, _ in stacks:
        stack.close()
    assert models.stats().ram_bytes <= 40
    assert all(fact.borrowed == 0 for fact in models.stats().models)


def unreadable() -> Weights:
    raise OSError("unreadable")


@given(st.lists(STEPS, min_size=3, max_size=3))
@settings(max_examples=60, deadline=None)
def test_random_orders_in_three_threads(scripts: list[list[tuple[str, str, str]]]):
    models = cache(ram=40, vram=30)
    loading: dict[ModelKey, int] = {}
    guard = threading.Lock()

    def load(wanted: ModelKey) -> Weights:
        with guard:
            loading[wanted] = loading.get(wanted, 0) + 1
            assert loading[wanted] == 1, "loaded twice at once"
        with guard:
            loading[wanted] -= 1
        return Weights(SIZES[wanted.component])

    def play(steps: list[tuple[str, str, str]]) -> None:
        stack = ExitStack()
        for action, name, device in steps:
            wanted = key(name, device)
            if action == "borrow":
                value = stack.enter_context(models.borrow(wanted, lambda wanted=wanted: load(wanted)))
                assert value.device == device
                assert models._entries[wanted].value is value
            elif action == "release":
                stack.close()
            elif action == "evict":
                models.evict_all()
        stack.close()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(play, steps) for steps in scripts]:
            done.result(30)
    stats = models.stats()
    assert stats.ram_bytes <= 40
    assert stats.vram_bytes <= 30
    assert all(fact.borrowed == 0 for fact in stats.models)
    assert not any(entry.busy for entry in models._entries.values())
