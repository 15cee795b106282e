"""Every kind of bad input there is a rule for, and the tests that hold it. The numbers are those of the plan.

A row without a test names what it waits for; there is none without a reason.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

REFUSED = (
    "unit/test_bad_payloads.py::test_what_can_never_run_is_refused_with_a_reason",
    "worker/test_bad_jobs.py::test_all_that_can_never_run_is_buried_as_it_was_and_all_that_can_runs",
)
RUNS = ("unit/test_bad_payloads.py::test_odd_but_sound_arguments_run_and_survive_a_splice",)
ODD = ("worker/test_bad_jobs.py::test_an_odd_job_runs_now",)
MESS = "worker/test_mess.py::test_whatever_jobs_do_to_their_process_it_goes_on_and_leaves_in_time"

ROWS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("an empty string", REFUSED),
    2: ("no JSON, or half of it", REFUSED),
    3: ("bytes behind the JSON", REFUSED),
    4: ("a byte order mark", REFUSED),
    5: ("UTF-16 and UTF-32", REFUSED),
    6: ("gzip, msgpack, pickle", REFUSED),
    7: ("invalid UTF-8 in a string", REFUSED),
    8: (
        "half of a surrogate pair",
        (*REFUSED, "unit/test_bad_pushes.py::test_the_encoder_refuses_half_of_a_surrogate_pair"),
    ),
    9: ("NaN and Infinity", REFUSED),
    10: ("1e999", REFUSED),
    11: ("integers of more than 64 bits", RUNS),
    12: ("an integer of 5,000 digits", REFUSED),
    13: ("floats keep their bytes", RUNS),
    14: ("duplicate keys", (*RUNS, *ODD)),
    15: (
        "a push nested deeper than 100",
        ("unit/test_bad_pushes.py::test_nesting_is_bounded_as_ruby_bounds_it_payload_and_args_counted",),
    ),
    16: (
        "a payload nested 101 to 512 deep",
        ("unit/test_bad_payloads.py::test_nesting_up_to_512_levels_runs_and_survives_a_splice",),
    ),
    17: (
        "a payload nested 100,000 deep",
        (*REFUSED, "unit/test_bad_payloads.py::test_deep_nesting_needs_no_recursion_even_where_python_allows_it"),
    ),
    18: ("JSON that is no object", REFUSED),
    19: ("no class", REFUSED),
    20: ("a class that is no name", REFUSED),
    21: (
        "a class that names a Python object",
        ("worker/test_running.py::test_an_unknown_class_is_retried_and_nothing_is_imported",),
    ),
    22: ("an unknown class", ("worker/test_running.py::test_an_unknown_class_is_retried_and_nothing_is_imported",)),
    23: (
        "a Ruby constant nobody has defined here",
        ("worker/test_running.py::test_an_unknown_class_is_retried_and_nothing_is_imported",),
    ),
    24: ("no args", REFUSED),
    25: ("args that are no list", REFUSED),
    26: (
        "arguments that do not fit",
        ("worker/test_running.py::test_arguments_that_do_not_fit_are_told_with_the_signature",),
    ),
    27: ("100,000 arguments", RUNS),
    28: ("no jid", ODD),
    29: ("an odd jid", (*ODD, *REFUSED, "unit/test_bad_payloads.py::test_an_odd_jid_runs_as_text")),
    30: ("one jid twice", ("worker/test_bad_jobs.py::test_one_jid_in_two_jobs_runs_twice",)),
    31: ("the same bytes twice", ("worker/test_running.py::test_the_same_bytes_twice_run_twice",)),
    32: ("an odd `retry`", ("unit/test_retry.py::test_how_often_a_job_is_retried",)),
    33: (
        "an odd `retry_count`",
        (
            "unit/test_retry.py::test_a_stored_count_is_made_sense_of",
            "unit/test_retry.py::test_a_huge_count_is_exhausted_and_does_not_grow",
        ),
    ),
    34: ("a `queue` that is not the list's", ODD),
    35: ("a hostile `queue`", ODD),
    36: ("`at` in a queue", ODD),
    37: ("odd times of creation", ODD),
    38: (
        "a backtrace that inflates without end",
        ("unit/test_retry.py::test_a_backtrace_that_inflates_without_end_is_not_followed",),
    ),
    39: (
        "a huge or hostile error message",
        (
            "worker/test_rough_jobs.py::test_any_exception_is_a_failure_with_a_text_that_can_be_stored",
            "unit/test_log.py::test_no_line_can_be_forged",
        ),
    ),
    40: ("odd tags", ("unit/test_bad_payloads.py::test_tags_are_read_within_limits",)),
    41: ("unknown fields", ("unit/test_retry.py::test_every_other_field_keeps_its_bytes",)),
    42: ("a batch that is gone", ODD),
    45: (
        "a payload of 64 MB and more",
        (*REFUSED, "unit/test_bad_payloads.py::test_giants_are_refused_without_being_parsed"),
    ),
    46: ("a queue of another type", ("worker/test_bad_jobs.py::test_a_queue_of_another_type_holds_up_no_other",)),
    47: (
        "a set with members that are no jobs, or scores without end",
        (
            "worker/test_bad_jobs.py::test_a_payload_in_the_schedule_that_is_no_job_is_buried_with_what_stands_beside_it_moved",
            "worker/test_rough_jobs.py::test_a_score_without_end_is_listed_and_never_due",
        ),
    ),
    48: (
        "our own keys of another type",
        (
            "worker/test_bad_jobs.py::test_a_key_of_ours_of_another_type_is_loud_and_takes_nothing",
            "servers_misbehave/test_wrong_types.py::test_a_key_of_another_type_loses_no_job",
        ),
    ),
    49: (
        "a lease that was edited",
        ("worker/test_bad_jobs.py::test_a_lease_that_somebody_edited_is_put_right_by_the_next_step",),
    ),
    51: (
        "bad names of queues",
        ("unit/test_bad_pushes.py::test_bad_queue_names_are_refused", "unit/test_bad_pushes.py::test_queue_names"),
    ),
    52: (
        "arguments that are not plain JSON",
        ("unit/test_bad_pushes.py::test_an_argument_that_is_not_plain_json_is_refused_with_its_path_and_a_cure",),
    ),
    53: (
        "a generator of millions of jobs",
        ("worker/test_mess.py::test_a_generator_of_any_length_is_read_no_further_than_a_batch_ahead",),
    ),
    54: (
        "odd times of pushes",
        (
            "unit/test_bad_pushes.py::test_a_malformed_push_is_refused_before_anything_is_sent",
            "store/test_push.py::test_a_time_that_has_come_means_now",
        ),
    ),
    55: (
        "pushes on ended loops, after shutdown, after a fork",
        (
            "worker/test_mess.py::test_a_push_on_a_loop_that_has_ended_is_an_error_and_the_next_loop_pushes",
            "worker/test_mess.py::test_a_push_at_the_interpreters_exit_goes_out",
            "worker/test_rough_jobs.py::test_a_push_from_a_forked_child_uses_a_connection_of_its_own",
        ),
    ),
    56: (
        "jobs that raise anything at all",
        (
            "worker/test_rough_jobs.py::test_any_exception_is_a_failure_with_a_text_that_can_be_stored",
            "unit/test_retry.py::test_any_error_is_recorded_and_retried",
        ),
    ),
    57: (
        "a job that changes its arguments and fails",
        ("unit/test_retry.py::test_what_the_run_did_to_the_job_is_not_stored",),
    ),
    58: ("a job that makes a mess of its process", (MESS, "crash/test_pills.py::*")),
    59: ("a huge result", ("worker/test_rough_jobs.py::test_a_huge_result_is_ignored",)),
    60: (
        "middleware that breaks or swallows",
        (
            "worker/test_rough_jobs.py::test_middleware_that_breaks_fails_the_job_and_nothing_else",
            "worker/test_mess.py::test_middleware_that_swallows_the_cancellation_holds_up_no_stop",
            "unit/test_middleware.py::test_cancellation_cannot_be_swallowed_by_a_sync_or_an_async_middleware",
        ),
    ),
    61: ("impossible options", ("unit/test_resolve.py::test_every_mistake_is_named_with_its_place",)),
    62: (
        "impossible addresses and servers",
        (
            "store/test_addresses.py::test_anything_else_is_refused",
            "store/test_addresses.py::test_no_error_no_log_and_no_repr_tells_a_password",
            "store/test_checks.py::test_the_version_floor",
            "store/test_checks.py::test_a_replica_is_refused_and_its_primary_named",
        ),
    ),
    63: (
        "garbage in the list of signals",
        ("worker/test_services.py::test_signals_from_a_dashboard_reach_the_process_and_garbage_does_not",),
    ),
    64: ("a clock that is far off", ("store/test_checks.py::test_a_clock_that_is_off_by_more_than_two_seconds_warns",)),
}

WITHOUT = {
    43: "encrypted arguments come with encryption",
    44: "signed jobs come with encryption",
    50: "a list of one claim is no more: claims stand in trays, and an index says which of a tray are held",
}

LAST = 64


def test_every_row_has_its_tests_or_a_reason() -> None:
    assert sorted(ROWS.keys() | WITHOUT.keys()) == list(range(1, LAST + 1))
    assert not ROWS.keys() & WITHOUT.keys()
    assert all(tests for _, tests in ROWS.values())
    assert all(WITHOUT.values())


@pytest.mark.parametrize("test", sorted({test for _, tests in ROWS.values() for test in tests}))
def test_the_tests_that_are_named_exist(test: str) -> None:
    path, _, name = test.partition("::")
    assert name in names_in(path) or (name == "*" and names_in(path))


@cache
def names_in(path: str) -> set[str]:
    """The names of the tests in a file."""
    found = ast.walk(ast.parse((TESTS / path).read_text()))
    return {node.name for node in found if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}
