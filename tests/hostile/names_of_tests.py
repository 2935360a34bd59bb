"""What the tests are called that fail without a check, as pytest names them."""

from __future__ import annotations


def test_of(file: str, test: str) -> str:
    return f"tests/{file}.py::test_{test}"


def frame(case: str) -> str:
    test = "a_frame_with_one_wrong_message_among_five_good_ones_changes_nothing"
    return test_of("hostile/test_wrong_frames", f"{test}[{case}]")


def forged(case: str) -> str:
    test = "twenty_of_twenty_later_writes_survive_a_forged_context"
    return test_of("hostile/test_contexts_of_clients", f"{test}[{case}]")


def context(test: str) -> str:
    return test_of("hostile/test_contexts_of_clients", test)


def step(test: str) -> str:
    return test_of("hostile/test_steps_out_of_order", test)


def size(test: str) -> str:
    return test_of("hostile/test_large_versions", test)


def stored(case: str) -> str:
    test = "a_node_starts_and_works_whatever_is_stored"
    return test_of("hostile/test_wrong_disks", f"{test}[{case}]")


def budget(test: str) -> str:
    return test_of("hostile/test_budgets", test)


def alone(test: str) -> str:
    return test_of("hostile/test_checks_alone", test)


def stranger(case: str) -> str:
    return test_of("unit/test_server_links", f"a_stranger_is_refused[{case}]")


def isolation(test: str) -> str:
    return test_of("unit/test_quorum_isolation", test)


def invalid(case: str) -> str:
    return test_of("unit/test_quorum_requests", f"what_is_invalid_changes_nothing[{case}]")


def directory(test: str) -> str:
    return test_of("unit/test_server_data_directory", test)
