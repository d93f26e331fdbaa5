"""The queue, one rule at a time: transitions, claims, leases, fairness, ageing, wishes, events, owners."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Callable

import pytest

from studio.claims import AGE_S
from studio.db import Database
from studio.errors import Conflict, EngineFailed, InvalidInput, LimitReached, NotFound
from studio.jobs import FINAL, LEGAL, Job, Jobs
from studio.placement import LOOK_AHEAD, MAX_SKIPS
from studio.settings import Settings
from tests.studio.conftest import FakeClock

ERROR = EngineFailed("It broke.", "Mend it.").as_dict()


def claimed(jobs: Jobs, worker: str = "w", warm: tuple[str, ...] = ()) -> Job:
    """The next job; there must be one."""
    job = jobs.claim(worker, "cpu", warm)
    assert job is not None
    return job


def in_state(jobs: Jobs, state: str) -> Job:
    """A job that got into `state` the usual way."""
    job = jobs.submit("e", {}, owner="ann")
    if state == "paused":
        return jobs.pause(job.id)
    if state == "queued":
        return job
    assert claimed(jobs).id == job.id
    if state == "cancelled":
        jobs.cancel(job.id)
    ends = {
        "succeeded": jobs.succeed,
        "failed": lambda i, w: jobs.fail(i, w, ERROR),
        "cancelled": jobs.finish_cancelled,
    }
    return ends[state](job.id, "w") if state in ends else jobs.get(job.id)


# What each of the queue's verbs makes of a job, as (target state, call).
VERBS: dict[str, tuple[str, Callable[[Jobs, str], object]]] = {
    "cancel": ("cancelled", lambda jobs, i: jobs.cancel(i)),
    "stop": ("running", lambda jobs, i: jobs.stop(i)),
    "pause": ("paused", lambda jobs, i: jobs.pause(i)),
    "resume": ("queued", lambda jobs, i: jobs.resume(i)),
    "retry": ("queued", lambda jobs, i: jobs.retry(i)),
    "succeed": ("succeeded", lambda jobs, i: jobs.succeed(i, "w")),
    "fail": ("failed", lambda jobs, i: jobs.fail(i, "w", ERROR)),
    "finish_cancelled": ("cancelled", lambda jobs, i: jobs.finish_cancelled(i, "w")),
    "finish_paused": ("paused", lambda jobs, i: jobs.finish_paused(i, "w")),
    "release": ("queued", lambda jobs, i: jobs.release(i, "w")),
    "postpone": ("queued", lambda jobs, i: jobs.postpone(i, "w", ERROR)),
    "heartbeat": ("running", lambda jobs, i: jobs.heartbeat(i, "w")),
    "wish": ("running", lambda jobs, i: jobs.wish(i, "w")),
    "progress": ("running", lambda jobs, i: jobs.progress(i, "w", {"step": 1})),
    "event": ("running", lambda jobs, i: jobs.event(i, "w", "saved", {})),
    "set_plan": ("running", lambda jobs, i: jobs.set_plan(i, "w", "thrifty")),
    "set_priority": ("", lambda jobs, i: jobs.set_priority(i, 5)),
}
ALLOWED = {
    ("queued", "cancel"),
    ("queued", "pause"),
    ("queued", "set_priority"),
    ("paused", "cancel"),
    ("paused", "resume"),
    ("paused", "set_priority"),
    ("failed", "retry"),
    ("cancelled", "retry"),
    *(("running", verb) for verb in ("cancel", "stop", "pause", "succeed", "fail", "release", "postpone")),
    *(("running", verb) for verb in ("heartbeat", "wish", "progress", "event")),
    ("running", "set_plan"),
    ("running", "set_priority"),
}


@pytest.mark.parametrize(("state", "verb"), sorted(itertools.product(LEGAL, VERBS)))
def test_every_verb_in_every_state(jobs: Jobs, state: str, verb: str):
    job = in_state(jobs, state)
    events = len(jobs.events(job.id))
    if (state, verb) in ALLOWED:
        VERBS[verb][1](jobs, job.id)
    else:
        with pytest.raises(Conflict) as caught:
            VERBS[verb][1](jobs, job.id)
        assert job.id in caught.value.message
        assert jobs.get(job.id) == job
        assert len(jobs.events(job.id)) == events


ILLEGAL = [(a, b) for a, b in itertools.product(LEGAL, LEGAL) if b not in LEGAL[a]]


@pytest.mark.parametrize(("state", "to"), ILLEGAL)
def test_every_illegal_transition_is_refused_by_move(jobs: Jobs, db: Database, state: str, to: str):
    from studio.rows import find, move

    job = in_state(jobs, state)
    with pytest.raises(Conflict), db.transaction() as connection:
        move(connection, find(connection, job.id), to, 0.0, "note")  # type: ignore[arg-type]
    assert jobs.get(job.id) == job


def test_move_compares_before_it_sets(jobs: Jobs, db: Database):
    from studio.rows import move

    stale = jobs.submit("e", {}, owner="ann")
    jobs.pause(stale.id)
    with pytest.raises(Conflict, match="changed"), db.transaction() as connection:
        move(connection, stale, "cancelled", 0.0, "cancelled")
    assert jobs.get(stale.id).state == "paused"


def test_final_states_are_those_without_a_way_on_but_retry():
    assert {state for state, ways in LEGAL.items() if ways <= {"queued"} and state != "paused"} == FINAL


def test_submit_is_idempotent_for_owner_and_token(jobs: Jobs):
    first = jobs.submit("e", {"seed": 1}, owner="ann", token="t")
    assert jobs.submit("e", {"seed": 2}, owner="ann", token="t") == first
    assert jobs.submit("e", {"seed": 1}, owner="bob", token="t") != first
    assert jobs.submit("e", {}, owner="ann") != jobs.submit("e", {}, owner="ann")


def test_a_token_still_counts_when_the_cap_is_reached(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings.replace(waiting_cap=1))
    first = jobs.submit("e", {}, owner="ann", token="t")
    assert jobs.submit("e", {}, owner="ann", token="t") == first


@pytest.mark.parametrize("token", ["", "x" * 201, "half \ud800"])
def test_a_token_that_cannot_be_kept_is_refused(jobs: Jobs, token: str):
    with pytest.raises(InvalidInput) as caught:
        jobs.submit("e", {}, owner="ann", token=token)
    assert caught.value.field == "token"


def test_parameters_that_json_cannot_hold_are_refused(jobs: Jobs):
    with pytest.raises(InvalidInput, match="cannot be stored"):
        jobs.submit("e", {"x": object()}, owner="ann")


@pytest.mark.parametrize("text", ["ünïcode ☃", "a\x00b", "lens 🔭", r"\ud83d", 'quo"te', "%_\\"])
def test_parameters_come_back_as_they_were(jobs: Jobs, text: str):
    assert jobs.submit("e", {"prompt": text}, owner="ann").params == {"prompt": text}


def test_waiting_and_paused_jobs_are_capped_per_owner(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings.replace(waiting_cap=2))
    jobs.pause(jobs.submit("e", {}, owner="ann").id)
    second = jobs.submit("e", {}, owner="ann")
    with pytest.raises(LimitReached, match="2 are allowed") as caught:
        jobs.submit("e", {}, owner="ann")
    assert caught.value.remedy
    jobs.submit("e", {}, owner="bob")
    jobs.cancel(second.id)
    jobs.submit("e", {}, owner="ann")
    with pytest.raises(LimitReached):
        jobs.retry(second.id)


def test_somebody_elses_job_looks_like_none(jobs: Jobs):
    job = jobs.submit("e", {}, owner="ann")
    for call in (jobs.get, jobs.cancel, jobs.pause, jobs.resume, jobs.retry, jobs.position):
        with pytest.raises(NotFound) as caught:
            call(job.id, "bob")
        assert str(caught.value).replace(job.id, "?") == str(_missing(jobs)).replace("nothing", "?")
    with pytest.raises(NotFound):
        jobs.events(job.id, owner="bob")
    with pytest.raises(NotFound):
        jobs.set_priority(job.id, 1, "bob")
    assert jobs.list("bob") == []
    assert jobs.get(job.id, "ann") == job


def _missing(jobs: Jobs) -> NotFound:
    with pytest.raises(NotFound) as caught:
        jobs.get("nothing", "bob")
    return caught.value


@pytest.mark.parametrize("job_id", ["", "nothing", "half \ud800", "x" * 10_000, "../../etc/passwd"])
def test_an_unknown_job_is_not_found(jobs: Jobs, job_id: str):
    with pytest.raises(NotFound):
        jobs.get(job_id)


def test_a_claim_leases_the_job_and_a_heartbeat_renews(jobs: Jobs, clock, settings: Settings):
    job = jobs.submit("e", {}, owner="ann")
    held = claimed(jobs)
    assert (held.id, held.state, held.worker, held.device, held.attempts) == (job.id, "running", "w", "cpu", 1)
    assert held.lease_until == clock.now + settings.lease
    clock.advance(20)
    assert jobs.heartbeat(job.id, "w") == ""
    clock.advance(20)
    assert jobs.claim("other", "cpu") is None
    assert jobs.get(job.id).worker == "w"


def test_an_expired_lease_is_taken_over_and_the_old_holder_is_refused(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs, "dead")
    clock.advance(31)
    again = claimed(jobs, "alive")
    assert (again.id, again.worker, again.attempts) == (job.id, "alive", 2)
    for call in (jobs.heartbeat, jobs.succeed, jobs.release, jobs.wish):
        with pytest.raises(Conflict):
            call(job.id, "dead")
    assert [event.kind for event in jobs.events(job.id)] == ["submitted", "claimed", "retry", "claimed"]


def test_a_clock_set_forward_takes_no_job_from_a_living_worker(db: Database, clock, settings: Settings):
    steady = FakeClock(7.0)
    jobs = Jobs(db, clock=clock, settings=settings, steady=steady)
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    clock.advance(3600)
    assert jobs.claim("other", "cpu") is None
    clock.advance(5)
    steady.advance(5)
    jobs.heartbeat(job.id, "w")  # by the new time
    for _ in range(2):
        clock.advance(20)
        steady.advance(20)
        assert jobs.claim("other", "cpu") is None
        jobs.heartbeat(job.id, "w")
    clock.advance(31)
    steady.advance(31)
    assert jobs.claim("other", "cpu").id == job.id, "a silent worker still loses it"


def test_a_clock_set_back_does_not_lengthen_the_lease_of_the_dead(db: Database, clock, settings: Settings):
    steady = FakeClock(7.0)
    jobs = Jobs(db, clock=clock, settings=settings, steady=steady)
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    clock.advance(-3600)
    assert jobs.claim("other", "cpu") is None
    clock.advance(31)
    steady.advance(31)
    assert jobs.claim("other", "cpu").id == job.id


def test_a_job_that_kills_its_workers_fails_with_a_sentence(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    for attempt in range(3):
        assert claimed(jobs).attempts == attempt + 1
        clock.advance(31)
    assert jobs.claim("w", "cpu") is None
    failed = jobs.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error["code"], failed.error["message"]) == (
        "worker_died",
        "The worker died 3 times while it ran this job.",
    )
    assert failed.error["remedy"]


def test_reclaim_takes_the_jobs_of_one_worker_at_once(jobs: Jobs):
    first, second = (jobs.submit("e", {}, owner="ann") for _ in range(2))
    claimed(jobs, "dead")
    claimed(jobs, "alive")
    assert [(job.id, job.state, job.attempts) for job in jobs.reclaim("dead")] == [(first.id, "queued", 1)]
    assert jobs.get(second.id).state == "running"
    assert jobs.reclaim("dead") == []


def test_release_counts_no_attempt(jobs: Jobs):
    job = jobs.submit("e", {}, owner="ann")
    for _ in range(5):
        assert claimed(jobs).attempts == 1
        jobs.release(job.id, "w")
    assert jobs.get(job.id).state == "queued"


@pytest.mark.parametrize("lose", ["expire", "reclaim", "release"])
@pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("stop", "cancelled"), ("pause", "paused")])
def test_a_wish_is_kept_when_the_worker_goes(jobs: Jobs, clock, lose: str, wish: str, state: str):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    getattr(jobs, wish)(job.id)
    if lose == "expire":
        clock.advance(31)
        assert jobs.claim("other", "cpu") is None
    else:
        jobs.reclaim("w") if lose == "reclaim" else jobs.release(job.id, "w")
    assert jobs.get(job.id).state == state


def test_cancel_of_a_running_job_is_a_wish_until_the_worker_obeys(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    asked = jobs.cancel(job.id)
    assert (asked.state, asked.wish, asked.wish_time) == ("running", "cancel", clock.now)
    clock.advance(5)
    assert jobs.cancel(job.id) == asked  # asking again moves no deadline
    assert jobs.heartbeat(job.id, "w") == jobs.wish(job.id, "w") == "cancel"
    assert [(late.id, late.wish_time) for late in jobs.cancelling()] == [(job.id, clock.now - 5)]
    assert jobs.finish_cancelled(job.id, "w").state == "cancelled"
    assert jobs.cancelling() == []


def test_a_job_that_succeeded_before_the_cancel_came_stays_succeeded(jobs: Jobs):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    jobs.cancel(job.id)
    assert jobs.succeed(job.id, "w").wish == ""
    with pytest.raises(Conflict, match="has succeeded"):
        jobs.cancel(job.id)
    with pytest.raises(Conflict):
        jobs.finish_cancelled(job.id, "w")
    assert jobs.get(job.id).state == "succeeded"


def test_cancel_wins_over_pause(jobs: Jobs):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    jobs.pause(job.id)
    assert jobs.cancel(job.id).wish == "cancel"
    with pytest.raises(Conflict, match="being stopped"):
        jobs.pause(job.id)
    with pytest.raises(Conflict, match="being cancelled"):
        jobs.stop(job.id)
    with pytest.raises(Conflict):
        jobs.resume(job.id)
    assert jobs.finish_paused(job.id, "w").state == "cancelled"


def test_a_stopped_job_succeeds_with_what_it_has(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    asked = jobs.stop(job.id)
    assert (asked.state, asked.wish, asked.kept) == ("running", "keep", False)
    assert jobs.heartbeat(job.id, "w") == jobs.wish(job.id, "w") == "keep"
    assert [late.id for late in jobs.cancelling()] == [job.id], "one that does not stop is killed like any other"
    done = jobs.succeed(job.id, "w", kept=True)
    assert (done.state, done.wish, done.kept) == ("succeeded", "", True)
    assert jobs.events(job.id)[-1].payload == {"kept": True}


def test_a_stop_may_come_to_nothing(jobs: Jobs):
    first, second, third = (jobs.submit("e", {}, owner="ann") for _ in range(3))
    claimed(jobs)
    jobs.stop(first.id)
    assert not jobs.succeed(first.id, "w").kept, "it was done before it heard"
    claimed(jobs)
    jobs.stop(second.id)
    assert jobs.finish_cancelled(second.id, "w").state == "cancelled"
    claimed(jobs)
    jobs.stop(third.id)
    assert jobs.cancel(third.id).wish == "cancel", "one may think better of it"


def test_pause_and_resume_of_a_running_job(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    assert jobs.pause(job.id).wish == "pause"
    assert jobs.resume(job.id).wish == ""  # taken back before it happened
    with pytest.raises(Conflict, match="Nobody asked"):
        jobs.finish_paused(job.id, "w")
    jobs.pause(job.id)
    paused = jobs.finish_paused(job.id, "w")
    assert (paused.state, paused.attempts, paused.worker, paused.lease_until) == ("paused", 0, None, None)
    assert jobs.claim("w", "cpu") is None
    clock.advance(100)
    assert jobs.resume(job.id).state == "queued"
    assert claimed(jobs).attempts == 1


def test_retry_gives_all_attempts_back(jobs: Jobs):
    job = in_state(jobs, "failed")
    assert job.error == ERROR
    again = jobs.retry(job.id, "ann")
    assert (again.id, again.state, again.attempts, again.error, again.ended) == (job.id, "queued", 0, None, None)
    assert jobs.events(job.id)[-1].kind == "retry"


def test_owners_take_turns(jobs: Jobs):
    many = [jobs.submit("e", {}, owner="ann") for _ in range(5)]
    one = jobs.submit("e", {}, owner="bob")
    order = []
    for _ in range(6):
        job = claimed(jobs)
        jobs.succeed(job.id, "w")
        order.append(job.id)
    assert order == [many[0].id, one.id, *(job.id for job in many[1:])]


def test_who_was_served_last_comes_last_even_after_a_pause(jobs: Jobs):
    for owner in ("ann", "bob", "ann", "bob"):
        jobs.submit("e", {}, owner=owner)
    assert [claimed(jobs).owner for _ in range(2)] == ["ann", "bob"]
    jobs.submit("e", {}, owner="cy")  # never served: first
    assert [claimed(jobs).owner for _ in range(3)] == ["cy", "ann", "bob"]


def test_running_jobs_are_capped_per_owner(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings.replace(running_cap=2))
    for _ in range(4):
        jobs.submit("e", {}, owner="ann")
    held = [claimed(jobs) for _ in range(2)]
    assert jobs.claim("w", "cpu") is None
    jobs.submit("e", {}, owner="bob")
    assert claimed(jobs).owner == "bob"
    jobs.succeed(held[0].id, "w")
    assert claimed(jobs).owner == "ann"


def test_priority_goes_first_within_an_owner_and_can_be_changed(jobs: Jobs):
    low, high, later = (jobs.submit("e", {}, owner="ann", priority=p) for p in (0, 2, 0))
    assert jobs.set_priority(later.id, 3, "ann").priority == 3
    assert jobs.events(later.id)[-1].payload == {"priority": 3}
    assert [claimed(jobs).id for _ in range(3)] == [later.id, high.id, low.id]


@pytest.mark.parametrize("priority", [-101, 101, 10**30])
def test_priority_has_a_range(jobs: Jobs, priority: int):
    with pytest.raises(InvalidInput) as caught:
        jobs.submit("e", {}, owner="ann", priority=priority)
    assert caught.value.field == "priority"


def test_waiting_makes_up_for_priority(jobs: Jobs, clock):
    old = jobs.submit("e", {}, owner="ann", priority=0)
    clock.advance(AGE_S - 1)
    urgent = jobs.submit("e", {}, owner="ann", priority=1)
    clock.advance(2)
    late = jobs.submit("e", {}, owner="ann", priority=1)  # a whole step after `old`
    assert [claimed(jobs).id for _ in range(3)] == [urgent.id, old.id, late.id]


def test_changing_priority_keeps_what_was_waited(jobs: Jobs, clock):
    old = jobs.submit("e", {}, owner="ann", priority=-1)
    clock.advance(10)
    new = jobs.submit("e", {}, owner="ann", priority=0)
    jobs.set_priority(old.id, 0)
    assert [claimed(jobs).id for _ in range(2)] == [old.id, new.id]


def test_a_warm_model_is_preferred_within_the_look_ahead(jobs: Jobs):
    cold = jobs.submit("e", {}, owner="ann", model_key="a")
    warm = jobs.submit("e", {}, owner="ann", model_key="b")
    assert claimed(jobs, warm=("b",)).id == warm.id
    assert claimed(jobs, warm=("b",)).id == cold.id


def test_what_is_loaded_elsewhere_is_left_to_who_has_it(jobs: Jobs):
    order = [jobs.submit("e", {}, owner="ann", model_key=key) for key in "aabab"]
    assert claimed(jobs, worker="w1").id == order[0].id
    assert claimed(jobs, worker="w2").id == order[2].id, "the worker that has a is the one to go on with it"
    assert claimed(jobs, worker="w3").id == order[1].id, "where all are loaded the oldest comes first"


def test_a_job_without_models_waits_for_nobodys(jobs: Jobs):
    plain = jobs.submit("e", {}, owner="ann")
    jobs.submit("e", {}, owner="ann", model_key="b")
    assert claimed(jobs, warm=("b",)).id == plain.id


def test_warmth_looks_neither_past_the_window_nor_over_owners_or_priorities(jobs: Jobs):
    first = jobs.submit("e", {}, owner="ann", model_key="a", priority=1)
    jobs.submit("e", {}, owner="ann", model_key="b", priority=0)
    jobs.submit("e", {}, owner="bob", model_key="b", priority=1)
    assert claimed(jobs, warm=("b",)).id == first.id


def test_the_window_ends_after_32_jobs(jobs: Jobs):
    order = [jobs.submit("e", {}, owner="ann", model_key="a") for _ in range(LOOK_AHEAD)]
    far = jobs.submit("e", {}, owner="ann", model_key="b")
    assert claimed(jobs, warm=("b",)).id == order[0].id
    jobs.submit("e", {}, owner="ann", model_key="b")
    assert claimed(jobs, warm=("b",)).id == far.id


def test_no_job_is_passed_over_more_than_32_times(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings.replace(running_cap=1000, waiting_cap=1000))
    unlucky = jobs.submit("e", {}, owner="ann", model_key="a")
    passed = 0
    for _ in range(MAX_SKIPS + 10):
        jobs.submit("e", {}, owner="ann", model_key="b")
        if claimed(jobs, warm=("b",)).id == unlucky.id:
            break
        passed += 1
    assert passed == MAX_SKIPS


def test_a_paused_queue_hands_out_nothing_but_still_cleans_up(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    jobs.pause_queue()
    assert jobs.queue_paused
    clock.advance(31)
    assert jobs.claim("w", "cpu") is None
    assert jobs.get(job.id).state == "queued"
    jobs.resume_queue()
    assert not jobs.queue_paused
    assert claimed(jobs).id == job.id


def test_position_counts_the_jobs_that_are_served_before(db: Database, clock, settings: Settings):
    jobs = Jobs(db, clock=clock, settings=settings.replace(running_cap=1000))
    for number, owner in enumerate("aabacbbcaac"):
        clock.advance(1)
        jobs.submit("e", {}, owner=owner, priority=number % 3)
    claimed(jobs)
    claimed(jobs)
    waiting = {job.id: jobs.position(job.id) for job in jobs.list(states={"queued"})}
    for expected in range(len(waiting)):
        job = claimed(jobs)
        assert waiting[job.id] == expected
    assert jobs.position(job.id) == 0


def test_events_have_no_gap_and_can_be_read_from_any_number(jobs: Jobs, clock):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    for step in range(5):
        clock.advance(1)
        jobs.progress(job.id, "w", {"step": step, "total": 5, "message": "Drawing", "eta": 1.5, "preview": step})
    jobs.event(job.id, "w", "saved", {"name": "a.png"})
    events = jobs.events(job.id)
    assert [event.seq for event in events] == list(range(1, 9))
    assert [event.seq for event in jobs.events(job.id, after=3, limit=2)] == [4, 5]
    assert jobs.get(job.id).progress == {"step": 4, "total": 5, "message": "Drawing", "eta": 1.5, "preview": 4}


@pytest.mark.parametrize("kind", ["succeeded", "claimed", "whatever"])
def test_a_worker_cannot_invent_transitions(jobs: Jobs, kind: str):
    job = jobs.submit("e", {}, owner="ann")
    claimed(jobs)
    with pytest.raises(ValueError, match="event kind"):
        jobs.event(job.id, "w", kind, {})


def test_the_list_filters_searches_and_pages(jobs: Jobs, clock):
    made = []
    for number in range(7):
        clock.advance(10)
        prompt = f"a red ring {number}" if number % 2 else "100% blue_sky"
        made.append(jobs.submit("e" if number < 5 else "f", {"prompt": prompt}, owner="ann"))
    ids = [job.id for job in reversed(made)]
    assert [job.id for job in jobs.list("ann")] == ids
    page = jobs.list("ann", limit=3)
    assert [job.id for job in page + jobs.list("ann", before=page[-1].seq)] == ids
    assert {job.id for job in jobs.list("ann", engine="f")} == {made[5].id, made[6].id}
    assert [job.id for job in jobs.list("ann", search="RING red 3")] == [made[3].id]
    assert len(jobs.list("ann", search="100%")) == 4
    assert jobs.list("ann", search="0_b") == jobs.list("ann", search="prompt") == jobs.list(search="\ud800") == []
    jobs.cancel(made[2].id)
    assert [job.id for job in jobs.list("ann", states=["cancelled"])] == [made[2].id]
    assert jobs.list("ann", states=[]) == []
    assert [job.id for job in jobs.list(since=made[1].created, until=made[3].created)] == [made[2].id, made[1].id]


def test_workers_and_timings(jobs: Jobs, clock):
    jobs.worker_seen("w", "cuda:0", {"kind": "cuda"}, ["a", "b"], 17)
    clock.advance(1)
    jobs.worker_seen("w", "cuda:0", {"kind": "cuda"}, ["b"], 17)
    (row,) = jobs.workers()
    assert (row.warm, row.seen, row.pid, row.facts) == (("b",), clock.now, 17, {"kind": "cuda"})
    jobs.worker_gone("w")
    jobs.worker_gone("w")
    assert jobs.workers() == []
    assert jobs.speed("e", "cpu") is None
    for seconds in [1.0] * 30 + [2.0] * 20:
        jobs.record_timing("e", "cpu", 4.0, seconds)
    jobs.record_timing("e", "cpu", 0.0, 0.0)
    assert jobs.speed("e", "cpu") == 2.0
    assert jobs.speed("e", "cuda") is None


def test_eight_threads_claim_three_hundred_jobs_once_each(db: Database, settings: Settings, clock):
    jobs = Jobs(db, clock=clock, settings=settings.replace(waiting_cap=1000, running_cap=1000))
    made = {jobs.submit("e", {}, owner=f"o{n % 7}", model_key=f"m{n % 3}").id for n in range(300)}
    taken: list[list[str]] = [[] for _ in range(8)]

    def work(number: int) -> None:
        while job := jobs.claim(f"w{number}", "cpu", (f"m{number % 3}",)):
            taken[number].append(job.id)
            jobs.progress(job.id, f"w{number}", {"step": 1, "total": 1})
            jobs.succeed(job.id, f"w{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [job_id for part in taken for job_id in part]
    assert len(everything) == 300
    assert set(everything) == made
    for job_id in made:
        assert [event.seq for event in jobs.events(job_id)] == [1, 2, 3, 4]


def _claim_all(path: str, settings: Settings, worker: str, results) -> None:
    database = Database(path, durable=False)
    jobs = Jobs(database, clock=database.clock, settings=settings)
    taken = []
    while job := jobs.claim(worker, "cpu"):
        taken.append(job.id)
    results.put(taken)
    database.close()


def test_processes_claim_every_job_once(db: Database, settings: Settings):
    settings = settings.replace(waiting_cap=1000, running_cap=1000)
    jobs = Jobs(db, clock=db.clock, settings=settings)
    made = {jobs.submit("e", {}, owner="ann").id for _ in range(100)}
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [
        context.Process(target=_claim_all, args=(str(db.path), settings, f"w{n}", results)) for n in range(3)
    ]
    for process in processes:
        process.start()
    everything = [job_id for _ in processes for job_id in results.get(timeout=60)]
    for process in processes:
        process.join()
    assert len(everything) == 100
    assert set(everything) == made


@pytest.mark.parametrize("end", ["succeed", "fail", "postpone", "crash"])
def test_cancel_racing_with_the_end_has_one_outcome(db: Database, settings: Settings, clock, end: str):
    jobs = Jobs(db, clock=clock, settings=settings.replace(waiting_cap=1000, running_cap=1000))
    for _ in range(30):
        job = jobs.submit("e", {}, owner="ann")
        claimed(jobs)
        barrier, outcomes = threading.Barrier(2), []

        def race(call: Callable[[], object], barrier=barrier, outcomes=outcomes) -> None:
            barrier.wait()
            try:
                call()
                outcomes.append("done")
            except Conflict:
                outcomes.append("refused")

        finish = {
            "succeed": lambda i=job.id: jobs.succeed(i, "w"),
            "fail": lambda i=job.id: jobs.fail(i, "w", ERROR),
            "postpone": lambda i=job.id: jobs.postpone(i, "w", ERROR),
            "crash": lambda: jobs.reclaim("w"),
        }
        threads = [
            threading.Thread(target=race, args=(call,)) for call in (finish[end], lambda i=job.id: jobs.cancel(i))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = jobs.get(job.id)
        assert after.state == {"succeed": "succeeded", "fail": "failed"}.get(end, "cancelled")
        assert after.wish == ""
        assert outcomes.count("done") >= 1


def test_cancel_racing_with_a_claim_has_one_outcome(db: Database, settings: Settings, clock):
    jobs = Jobs(db, clock=clock, settings=settings.replace(waiting_cap=1000, running_cap=1000))
    for _ in range(30):
        job = jobs.submit("e", {}, owner="ann")
        got: list[Job | None] = []
        threads = [
            threading.Thread(target=lambda got=got: got.append(jobs.claim("w", "cpu"))),
            threading.Thread(target=lambda i=job.id: jobs.cancel(i)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = jobs.get(job.id)
        assert (after.state, after.wish) == (("running", "cancel") if got[0] else ("cancelled", ""))
        if got[0]:
            jobs.finish_cancelled(job.id, "w")


def test_no_question_of_the_queue_reads_every_job(db: Database, jobs: Jobs):
    asked: list[str] = []
    db.connect().set_trace_callback(asked.append)
    for number in range(3):
        jobs.submit("e", {}, owner=f"owner{number}", model_key=f"m{number}")
    job = jobs.claim("w", "cpu", ["m2"])
    assert job is not None
    jobs.heartbeat(job.id, "w")
    jobs.progress(job.id, "w", {"step": 1})
    jobs.set_plan(job.id, "w", "fast")
    jobs.cancel(job.id)
    jobs.cancelling()
    jobs.reclaim("w")
    jobs.position(jobs.submit("e", {}, owner="owner0").id)
    db.connect().set_trace_callback(None)
    questions = [text for text in dict.fromkeys(asked) if text.startswith(("SELECT", "UPDATE", "WITH", "INSERT"))]
    assert len(questions) > 15
    for text in questions:
        plan = [row["detail"] for row in db.connect().execute(f"EXPLAIN QUERY PLAN {text}")]
        scans = [step for step in plan if step.startswith(("SCAN job", "SCAN event")) and "job_leases" not in step]
        assert not scans, f"{text}: {plan}"
