"""The worker: every way a job can end, memory plans, checkpoints, and what a lost lease forbids."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studio import logs
from studio.encoders import read_provenance
from studio.errors import StoreUnavailable
from studio.worker import Outcome, run_job
from tests.studio.results import add_output
from tests.studio.shop import WORKER, Shop, open_shop
from tests.waiting import until


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = open_shop(tmp_path)
    shop.worker.pulse.start()
    yield shop
    shop.worker.pulse.end()
    shop.services.close()


def test_a_result_is_whole_before_it_is_announced(shop: Shop):
    outcome, job = shop.work(seed=4, steps=3, methods=("method", "plain"))
    assert outcome == job.state == "succeeded"
    manifest = shop.services.artifacts.manifest(job.id)
    assert [file["name"] for file in manifest["files"]] == ["method-4.png", "plain-4.png"]
    assert manifest["files"][0]["metrics"].keys() == {"mean"}
    assert manifest["metrics"] == {"pictures": 2}
    assert manifest["models"][0]["repo"] == "tests/quick"
    assert manifest["seconds"] >= manifest["seconds_loading"] >= 0
    assert manifest["peak_memory_bytes"] > 2**20
    assert manifest["stages"] == [{"stage": "Step #", "seconds": manifest["stages"][0]["seconds"]}]
    assert shop.services.artifacts.newest_checkpoint(job.id) is None
    assert shop.services.jobs.speed("quick_engine", "cpu") > 0


def test_provenance_is_in_the_file_and_says_nothing_of_the_moment(shop: Shop):
    _, job = shop.work(seed=4, steps=2)
    output = shop.services.artifacts.outputs(job.id)[0]
    inside = read_provenance(shop.services.artifacts.path(output.sha).read_bytes())
    assert inside["engine"] == "quick_engine"
    assert inside["params"] == job.params
    assert inside["seed"] == 4
    assert inside["device"] == "cpu"
    assert {"atelier", "torch", "numpy"} <= inside["versions"].keys()
    assert job.id not in json.dumps(inside)


def test_the_same_parameters_give_the_same_bytes(shop: Shop):
    _, first = shop.work(seed=4, steps=3)
    _, second = shop.work(seed=4, steps=3)
    _, other = shop.work(seed=5, steps=3)
    one, two, three = (shop.services.artifacts.outputs(job.id)[0].sha for job in (first, second, other))
    assert one == two != three


def test_a_fault_of_the_engine_is_a_sentence_and_the_traceback_is_in_the_log(
    shop: Shop, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR):
        outcome, job = shop.work(fault="raise")
    assert outcome == job.state == "failed"
    assert job.error["message"] == "Quick stopped on a fault of its own (ZeroDivisionError)."
    assert job.id in job.error["remedy"]
    assert "a secret of the engine" in caplog.text


def test_a_typed_error_keeps_its_sentence_and_field(shop: Shop):
    _, job = shop.work(fault="refuse")
    assert (job.error["code"], job.error["field"]) == ("invalid_input", "prompt")
    assert job.error["message"] == "Nobody can draw that."


def test_memory_running_out_is_tried_once_more_with_the_thriftier_plan(shop: Shop):
    outcome, job = shop.work(fault="memory")
    assert outcome == "succeeded"
    assert job.plan == "thrifty"
    assert shop.kinds(job.id).count("plan") == 2
    assert shop.worker.bench.cache.stats().evictions == 1


def test_memory_running_out_twice_is_said(shop: Shop):
    outcome, job = shop.work(fault="memory_always")
    assert outcome == "failed"
    assert job.error["code"] == "out_of_memory"
    assert "cpu" in job.error["message"]
    assert "smaller size" in job.error["remedy"]
    assert shop.kinds(job.id).count("plan") == 2


def test_a_worker_whose_device_broke_ends_after_the_job(shop: Shop):
    outcome, job = shop.work(fault="poison")
    assert outcome == "failed"
    assert job.error["code"] == "engine_failed"
    assert shop.worker.pulse.stopping.is_set()


def test_an_engine_that_stops_unasked_has_failed(shop: Shop):
    outcome, job = shop.work(fault="unasked")
    assert outcome == job.state == "failed"
    assert job.error["code"] == "engine_failed"


def test_a_failed_job_goes_on_from_its_checkpoint_when_retried(shop: Shop):
    trace = str(shop.folder / "trace")
    _, job = shop.work(steps=4, fault="memory_always", fault_at=2, trace=trace)
    assert [line.split()[2] for line in shop.trace()] == ["0", "1"]
    shop.services.jobs.retry(job.id)
    run_job(shop.claim(), shop.services, shop.bench)
    assert [line.split()[2] for line in shop.trace()] == ["0", "1"], "steps 0 and 1 are not computed again"


def test_a_cancel_is_heard_at_the_next_step(shop: Shop):
    job_id = shop.submit(barrier=str(shop.folder / "never"))
    thread, outcomes = shop.begin(shop.claim())
    shop.services.jobs.cancel(job_id)
    thread.join(30)
    assert outcomes == ["cancelled"]
    assert shop.services.jobs.get(job_id).state == "cancelled"


def held_after(
    shop: Shop, step: int, before: Callable[[str], None] = lambda job_id: None, **values: Any
) -> tuple[str, threading.Thread, list[Outcome]]:
    """A running job that has computed `step` steps and waits for the file "go" without looking at wishes.

    `before` is called with its id while it still waits.
    """
    told = {"barrier": str(shop.folder / "go"), "hold_at": step, "deaf": True, "trace": str(shop.folder / "trace")}
    job_id = shop.submit(**told, **values)
    before(job_id)
    thread, outcomes = shop.begin(shop.claim())
    until((shop.folder / "go.held").exists)
    return job_id, thread, outcomes


def test_stop_and_keep_keeps_what_was_saved(shop: Shop):
    saved = shop.services.artifacts.put(b"the first picture", media_type="image/png")

    def save(job_id: str) -> None:
        add_output(shop.services.artifacts, job_id, "method-0.png", "image", saved, {})

    job_id, thread, outcomes = held_after(shop, 3, save, steps=5, methods=("method", "plain"))
    shop.services.jobs.stop(job_id)
    until(lambda: shop.bench.pulse.wish == "keep")
    (shop.folder / "go").touch()
    thread.join(30)
    assert outcomes == ["succeeded"]
    manifest = shop.services.artifacts.manifest(job_id)
    assert shop.services.jobs.get(job_id).kept
    assert manifest["stopped_at"] == {"step": 9, "total": 10}
    assert [file["name"] for file in manifest["files"]] == ["method-0.png"]
    assert shop.services.jobs.speed("quick_engine", "cpu") is None, "a part of a run says nothing about speed"


def test_stop_and_keep_leaves_the_newest_preview_where_nothing_was_saved(shop: Shop):
    job_id, thread, outcomes = held_after(shop, 2, steps=5, seed=3)
    shop.services.jobs.stop(job_id)
    until(lambda: shop.bench.pulse.wish == "keep")
    (shop.folder / "go").touch()
    thread.join(30)
    (output,) = shop.services.artifacts.outputs(job_id)
    assert (output.name, output.attributes["role"]) == ("unfinished.png", "unfinished")
    inside = read_provenance(shop.services.artifacts.path(output.sha).read_bytes())
    assert inside["stopped_at"] == {"step": 3, "total": 5}, "these settings alone would give another picture"


def test_stop_and_keep_of_an_engine_that_can_leave_off_is_its_own_result_so_far(shop: Shop):
    job_id, thread, outcomes = held_after(shop, 2, steps=9, seed=3, early=True)
    shop.services.jobs.stop(job_id)
    until(lambda: shop.bench.pulse.wish == "keep")
    (shop.folder / "go").touch()
    thread.join(30)
    job = shop.services.jobs.get(job_id)
    assert (outcomes, job.state, job.kept) == (["succeeded"], "succeeded", True)
    step = shop.services.artifacts.manifest(job_id)["stopped_at"]["step"]
    assert step == 3
    _, short = shop.work(steps=step, seed=3)
    assert pixels(shop, job_id) == pixels(shop, short.id)


def test_stop_and_keep_of_nothing_is_a_cancel(shop: Shop):
    job_id = shop.submit(barrier=str(shop.folder / "never"), hold_at=0)
    thread, outcomes = shop.begin(shop.claim())
    shop.services.jobs.stop(job_id)
    thread.join(30)
    assert (outcomes, shop.services.jobs.get(job_id).state) == (["cancelled"], "cancelled")


def pixels(shop: Shop, job_id: str) -> bytes:
    (output,) = shop.services.artifacts.outputs(job_id)
    with Image.open(shop.services.artifacts.path(output.sha)) as image:
        return image.tobytes()


def test_a_pause_taken_back_at_the_last_moment_gives_the_job_back(shop: Shop):
    job_id = shop.submit()
    job = shop.claim()
    shop.services.jobs.pause(job_id)
    shop.bench.pulse.attach(job.id)
    until(lambda: shop.bench.pulse.heard == "pause")
    shop.services.jobs.resume(job_id)
    assert run_job(job, shop.services, shop.bench) in ("succeeded", "released")
    assert shop.services.jobs.get(job_id).state in ("succeeded", "queued")


def test_a_stopping_worker_gives_its_job_back(shop: Shop):
    job_id = shop.submit(steps=4, barrier=str(shop.folder / "never"), hold_at=2)
    thread, outcomes = shop.begin(shop.claim())
    until(lambda: shop.kinds(job_id).count("checkpoint") == 2)
    shop.worker.stop()
    thread.join(30)
    job = shop.services.jobs.get(job_id)
    assert (outcomes, job.state, job.attempts) == (["released"], "queued", 0)


def test_a_stopping_worker_finishes_what_is_nearly_done(shop: Shop):
    job_id, thread, outcomes = held_after(shop, 1, steps=3, keep=False)
    shop.worker.stop()
    (shop.folder / "go").touch()
    thread.join(30)
    assert (outcomes, shop.services.jobs.get(job_id).state) == (["succeeded"], "succeeded")


def test_a_stopping_worker_goes_on_to_the_next_checkpoint(shop: Shop):
    job_id, thread, outcomes = held_after(shop, 1, steps=9, keep_every=3)
    shop.worker.stop()
    (shop.folder / "go").touch()
    thread.join(30)
    job = shop.services.jobs.get(job_id)
    assert (outcomes, job.state, job.attempts) == (["released"], "queued", 0)
    assert [e.payload["step"] for e in shop.services.jobs.events(job_id) if e.kind == "checkpoint"] == [3]


def test_a_worker_asked_twice_to_stop_stops_at_the_next_step(shop: Shop):
    job_id, thread, outcomes = held_after(shop, 1, steps=3, keep=False)
    shop.worker.stop()
    shop.worker.stop()
    (shop.folder / "go").touch()
    thread.join(30)
    assert (outcomes, shop.services.jobs.get(job_id).state) == (["released"], "queued")


def test_an_attempt_without_its_lease_writes_nothing_more(shop: Shop):
    barrier = shop.folder / "go"
    job_id = shop.submit(steps=3, barrier=str(barrier), hold_at=1, deaf=True)
    thread, outcomes = shop.begin(shop.claim())
    until(lambda: "checkpoint" in shop.kinds(job_id))
    shop.services.jobs.reclaim(WORKER)
    assert shop.services.jobs.claim("another", "cpu").id == job_id
    before = len(shop.services.jobs.events(job_id))
    barrier.touch()
    thread.join(30)
    assert outcomes == ["lost"]
    assert len(shop.services.jobs.events(job_id)) == before
    assert shop.services.artifacts.outputs(job_id) == []
    assert shop.services.artifacts.manifest(job_id) is None
    assert shop.services.jobs.get(job_id).worker == "another"


def test_a_result_that_was_whole_when_the_worker_died_is_only_announced(shop: Shop):
    trace = str(shop.folder / "trace")
    job_id = shop.submit(steps=2, trace=trace)
    job, succeed = shop.claim(), shop.services.jobs.succeed

    class Died(BaseException):
        pass

    def die(*_: str, **__: bool) -> None:
        raise Died

    object.__setattr__(shop.services.jobs, "succeed", die)
    with pytest.raises(Died):
        run_job(job, shop.services, shop.bench)
    object.__setattr__(shop.services.jobs, "succeed", succeed)
    assert shop.services.jobs.get(job_id).state == "running"
    shop.services.jobs.reclaim(WORKER)
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"
    assert len(shop.trace()) == 2, "nothing is computed again"
    assert shop.services.jobs.get(job_id).attempts == 2


def test_a_worker_that_dies_before_the_manifest_leaves_only_that_to_do(shop: Shop):
    trace = str(shop.folder / "trace")
    job_id = shop.submit(steps=2, trace=trace)
    write = shop.services.artifacts.write_manifest

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    object.__setattr__(shop.services.artifacts, "write_manifest", die)
    with pytest.raises(Died):
        run_job(shop.claim(), shop.services, shop.bench)
    object.__setattr__(shop.services.artifacts, "write_manifest", write)
    shop.services.jobs.reclaim(WORKER)
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"
    assert len(shop.trace()) == 2, "nothing is computed again"
    assert shop.services.artifacts.manifest(job_id)["stages"] == []


def test_a_manifest_whose_files_are_gone_does_not_count(shop: Shop):
    job_id = shop.submit(steps=2)
    shop.services.artifacts.write_manifest(job_id, {"files": [{"sha256": "0" * 64}]})
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"
    assert shop.services.artifacts.manifest(job_id)["files"][0]["name"] == "method-0.png"


def test_uploads_of_others_cannot_be_read(shop: Shop):
    mine = shop.services.artifacts.put(b"mine", media_type="text/plain", owner="anna", name="a.txt")
    other = shop.services.artifacts.put(b"other", media_type="text/plain", owner="bert", name="b.txt")
    assert shop.work(picture=mine)[0] == "succeeded"
    outcome, job = shop.work(picture=other)
    assert outcome == "failed"
    assert job.error["code"] == "not_found"


def test_a_row_the_parameters_no_longer_take_fails_with_a_sentence(shop: Shop):
    shop.services.jobs.submit("quick_engine", {"steps": 0}, owner="anna")
    assert run_job(shop.claim(), shop.services, shop.bench) == "failed"
    assert shop.services.jobs.list()[0].error["field"] == "steps"


def test_a_job_of_an_engine_that_left_fails_with_a_sentence(shop: Shop):
    shop.services.jobs.submit("gone", {}, owner="anna")
    assert run_job(shop.claim(), shop.services, shop.bench) == "failed"
    assert shop.services.jobs.list()[0].error["code"] == "not_found"


def test_a_damaged_checkpoint_is_as_good_as_none(shop: Shop):
    job_id = shop.submit(steps=3)
    path = shop.services.artifacts.checkpoint_path(job_id, 2)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"torn")
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"


def test_the_loop_runs_until_the_queue_is_empty_and_publishes_what_is_warm(tmp_path: Path):
    shop = open_shop(tmp_path)
    seen = []
    publish = shop.services.jobs.worker_seen
    object.__setattr__(shop.services.jobs, "worker_seen", lambda *row: (seen.append(row), publish(*row)))
    for seed in range(3):
        shop.submit(seed=seed)
    shop.worker.run(until_empty=True)
    assert [job.state for job in shop.services.jobs.list()] == ["succeeded"] * 3
    assert seen[0][2]["memory_total"] > 0
    assert shop.bench.cache.warm_keys() == ["quick/one"]
    assert shop.services.jobs.workers() == []


def test_a_disk_that_fails_puts_the_job_off_and_it_goes_on_when_it_is_well(shop: Shop):
    trace = str(shop.folder / "trace")
    job_id = shop.submit(steps=3, trace=trace)
    blocked = shop.services.settings.home / "checkpoints"
    blocked.touch()  # a file where a folder is needed, which stops even root
    assert run_job(shop.claim(), shop.services, shop.bench) == "postponed"
    job = shop.services.jobs.get(job_id)
    assert (job.state, job.attempts, job.error) == ("queued", 1, None)
    assert "could not be written" in shop.services.jobs.events(job_id)[-1].payload["reason"]
    blocked.unlink()
    assert run_job(shop.claim(), shop.services, shop.bench) == "succeeded"


def test_a_disk_that_fails_every_attempt_fails_the_job_with_its_sentence(shop: Shop):
    job_id = shop.submit()
    (shop.services.settings.home / "checkpoints").touch()
    outcomes = [run_job(shop.claim(), shop.services, shop.bench) for _ in range(3)]
    job = shop.services.jobs.get(job_id)
    assert outcomes == ["postponed", "postponed", "failed"]
    assert (job.state, job.error["code"]) == ("failed", "store_unavailable")


def test_a_cancel_while_the_disk_fails_is_a_cancel(shop: Shop):
    job_id = shop.submit(barrier=str(shop.folder / "go"), deaf=True)
    thread, outcomes = shop.begin(shop.claim())
    shop.services.jobs.cancel(job_id)
    (shop.services.settings.home / "checkpoints").touch()
    (shop.folder / "go").touch()
    thread.join(30)
    assert outcomes == ["cancelled"]
    assert shop.services.jobs.get(job_id).state == "cancelled"


def test_what_is_only_shown_may_fail(shop: Shop):
    (shop.services.settings.home / "previews").touch()
    outcome, job = shop.work(steps=3)
    assert outcome == "succeeded"
    assert job.progress["step"] == 3


def test_no_further_job_is_taken_until_the_disk_takes_a_file(tmp_path: Path):
    shop = open_shop(tmp_path)
    first, second = shop.submit(seed=1), shop.submit(seed=2)
    blocked = shop.services.settings.home / "tmp"
    blocked.touch()
    shop.worker.run(until_empty=True)
    jobs = [shop.services.jobs.get(job_id) for job_id in (first, second)]
    assert [(job.state, job.attempts) for job in jobs] == [("queued", 1), ("queued", 0)]
    blocked.unlink()
    open_shop(tmp_path).worker.run(until_empty=True)
    assert [shop.services.jobs.get(job_id).state for job_id in (first, second)] == ["succeeded"] * 2


def test_a_job_whose_end_could_not_be_written_is_not_held_for_ever(tmp_path: Path):
    shop = open_shop(tmp_path)
    job_id = shop.submit()
    assert shop.claim().id == job_id
    shop.worker._troubled = True
    shop.worker.run(until_empty=True)
    assert shop.services.jobs.get(job_id).state == "succeeded"


@pytest.mark.parametrize("fault", ["raise", ""])
def test_previews_go_when_the_job_has_ended(shop: Shop, fault: str):
    _, job = shop.work(steps=3, fault=fault, fault_at=2)
    assert job.progress["preview"] >= 1
    assert not (shop.services.settings.home / "previews" / job.id).exists()


def test_no_job_is_taken_when_the_disk_is_nearly_full(tmp_path: Path):
    shop = open_shop(tmp_path)
    shop.submit()
    full = open_shop(tmp_path, disk_reserve=2**62)
    full.worker.run(until_empty=True)
    assert shop.services.jobs.list()[0].state == "queued"
    with pytest.raises(StoreUnavailable, match="too little"):
        full.submit()


def test_every_line_of_the_log_names_the_job(tmp_path: Path):
    handlers = logging.getLogger().handlers[:]
    try:
        logs.configure(tmp_path, "worker", errors_shown=False)
        with logs.working_on("j123"):
            logging.getLogger("engine").warning("hot")
        logging.getLogger("engine").warning("cold")
    finally:
        logging.basicConfig(force=True, handlers=handlers)
    first, second = (json.loads(line) for line in (tmp_path / "logs" / "worker.log").read_text().splitlines())
    assert (first["job"], first["message"], second["job"]) == ("j123", "hot", None)
