"""Every moment belongs to one stage, whoever enters it, and the sum of all stages is the time that has passed."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amct_tensorflow.io import stages
from amct_tensorflow.io.stages import OTHER, Spent, StageClock, counted_beside, counted_here, measured_stages, stage


@pytest.fixture
def moment(monkeypatch):
    """The clocks: of the wall, and of the process, which runs twice as fast."""
    now = [0.0]
    monkeypatch.setattr(stages, "_now", lambda: (now[0], 2 * now[0]))

    def pass_by(seconds):
        now[0] += seconds

    return pass_by


def test_what_a_stage_enters_is_not_counted_to_it(moment):
    with measured_stages() as clock:
        moment(1)
        with stage("calibration"):
            moment(2)
            with stage("rounding"):
                moment(4)
            moment(8)
        with stage("rounding"):
            moment(16)
        moment(32)
        assert clock.spent() == (
            Spent("calibration", 10, 20), Spent("rounding", 20, 40), Spent(OTHER, 33, 66),
        )  # fmt: skip


def test_a_stage_is_left_by_an_error(moment):
    with measured_stages() as clock:
        with pytest.raises(KeyError), stage("calibration"):
            moment(1)
            raise KeyError
        moment(2)
    assert clock.spent() == (Spent("calibration", 1, 2), Spent(OTHER, 2, 4))


def test_a_function_is_a_stage(moment):
    @stage("work")
    def work(seconds):
        moment(seconds)
        return seconds

    assert work(1) == 1  # nobody measures
    with measured_stages() as clock:
        assert work(2) == 2 and work(4) == 4
        assert clock.spent() == (Spent("work", 6, 12), Spent(OTHER, 0, 0))


def test_a_thread_enters_a_stage_while_the_caller_waits_for_it(moment):
    def work():
        with stage("rounding"):
            moment(2)

    with measured_stages() as clock, stage("calibration"):
        moment(1)
        thread = threading.Thread(target=counted_here(work))
        thread.start()
        thread.join()
        moment(4)
        assert clock.spent() == (Spent("calibration", 5, 10), Spent("rounding", 2, 4), Spent(OTHER, 0, 0))


def test_what_goes_on_beside_counts_to_no_stage_but_its_own(moment):
    """Its processor seconds are those of the stages that it goes on beside."""
    entered, go_on = threading.Event(), threading.Event()

    @stage("rounding")
    def work():
        entered.set()
        go_on.wait(10)

    with measured_stages() as clock:
        with stage("evaluation"):
            moment(1)
            thread = threading.Thread(target=counted_beside(work))
            thread.start()
            entered.wait(10)
            moment(2)
        moment(4)
        go_on.set()
        thread.join()
        moment(8)
        assert clock.spent() == (Spent("evaluation", 3, 6), Spent(OTHER, 12, 24), Spent("rounding", 6, None))


def test_nothing_is_counted_beside_where_nobody_measures():
    def work():
        return 1

    assert counted_beside(work) is work


def test_runs_in_threads_have_a_clock_each(moment):
    """They enter and leave stages in any order, and one goes on when the other has ended."""
    begun, go_on, clocks = threading.Event(), threading.Event(), {}

    def work():
        with measured_stages() as clocks["work"], stage("rounding"):
            begun.set()
            go_on.wait(10)

    with measured_stages() as clock:
        with stage("calibration"):
            moment(1)
            thread = threading.Thread(target=work)
            thread.start()
            begun.wait(10)
            moment(2)
        moment(4)
        assert clock.spent() == (Spent("calibration", 3, 6), Spent(OTHER, 4, 8))
    moment(8)
    go_on.set()
    thread.join()
    assert clocks["work"].spent() == (Spent("rounding", 14, 28), Spent(OTHER, 0, 0))


def test_what_is_called_later_counts_to_the_run_that_it_is_of(moment):
    with measured_stages() as clock:
        later = counted_here(stage("calibration")(moment))
    with measured_stages() as another:
        later(1)
        assert another.spent() == (Spent(OTHER, 1, 2),)
    assert clock.spent() == (Spent("calibration", 1, 2), Spent(OTHER, 0, 0))


def test_blocks_share_a_clock_and_the_next_begins_anew(moment):
    with measured_stages() as outer:
        with measured_stages() as inner:
            moment(1)
        assert inner is outer and outer.spent() == (Spent(OTHER, 1, 2),)
    with measured_stages() as another:
        assert another is not outer and another.spent() == (Spent(OTHER, 0, 0),)


STEPS = st.recursive(
    st.integers(0, 9), lambda inner: st.tuples(st.sampled_from("abc"), st.lists(inner, max_size=4)), max_leaves=12
)


@given(st.lists(STEPS, max_size=6))
def test_the_stages_add_up(steps):
    now = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_now", lambda: (now[0], now[0]))
        clock, expected = StageClock(), {OTHER: 0}

        def follow(steps, current):
            for step in steps:
                if isinstance(step, int):
                    now[0] += step
                    expected[current] += step
                else:
                    name, inner = step
                    expected.setdefault(name, 0)
                    left = clock.enter(name)
                    follow(inner, name)
                    assert clock.enter(left) == name

        follow(steps, OTHER)
        assert {each.stage: each.seconds for each in clock.spent()} == expected
        assert sum(each.processor_seconds for each in clock.spent()) == now[0]
