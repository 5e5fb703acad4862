"""
The tree of errors: who is whose kind, what each carries, and that all of it survives a pickle.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import traceback
from collections.abc import Mapping
from typing import Any, Final

import pytest

from veo_async import errors
from veo_async.errors import (
    ApiError,
    ConnectionFailed,
    InvalidRequest,
    JobAbandoned,
    JobFailed,
    RateLimited,
    ServerError,
    SubmissionUnknown,
    TransportTimedOut,
    VeoError,
)

# design.md, "Errors": each class, what it is a kind of, and the builtin that catches it too.
TREE: Final[Mapping[str, tuple[str, type[Exception] | None]]] = {
    "ConfigurationError": ("VeoError", ValueError),
    "UsageError": ("VeoError", RuntimeError),
    "InvalidRequest": ("VeoError", ValueError),
    "KeyConflict": ("VeoError", ValueError),
    "ApiError": ("VeoError", None),
    "AuthenticationError": ("ApiError", None),
    "PermissionDenied": ("ApiError", None),
    "InsufficientBalance": ("PermissionDenied", None),
    "BadRequest": ("ApiError", None),
    "RateLimited": ("ApiError", None),
    "ServerError": ("ApiError", None),
    "TaskNotFound": ("VeoError", LookupError),
    "TransportError": ("VeoError", None),
    "ConnectionFailed": ("TransportError", ConnectionError),
    "TransportTimedOut": ("TransportError", TimeoutError),
    "ProtocolError": ("TransportError", None),
    "SubmitTimedOut": ("VeoError", TimeoutError),
    "BudgetExceeded": ("VeoError", None),
    "SubmissionUnknown": ("VeoError", None),
    "JobError": ("VeoError", None),
    "JobFailed": ("JobError", None),
    "JobTimedOut": ("JobError", TimeoutError),
    "JobVanished": ("JobError", None),
    "TrackingLost": ("JobError", None),
    "JobAbandoned": ("JobError", None),
    "SessionClosed": ("VeoError", None),
    "PlatformError": ("VeoError", None),
    "DownloadError": ("VeoError", None),
    "JournalError": ("VeoError", None),
}
BUILTINS: Final = (ValueError, RuntimeError, LookupError, ConnectionError, TimeoutError)

REPLY: Final[Mapping[str, Any]] = {"status": 403, "code": "used_up", "trace_id": "trace-1"}
WAIT: Final[Mapping[str, Any]] = {**REPLY, "retry_after": 7.5}

# What a class carries beside `key` and `task_id`; a class that is not named carries nothing.
CARRIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "ApiError": REPLY,
    "AuthenticationError": REPLY,
    "PermissionDenied": REPLY,
    "InsufficientBalance": REPLY,
    "BadRequest": REPLY,
    "RateLimited": WAIT,
    "ServerError": WAIT,
    "SubmissionUnknown": {"sent_at": 1_770_000_000.25, "candidates": ("task-2", "task-3")},
    "PlatformError": {"status": 401},
    "JobFailed": {"code": "api_error", "trace_id": "trace-1"},
}
JOB: Final = {"key": "order-7", "task_id": "task-1"}


def _class(name: str) -> type[VeoError]:
    found: type[VeoError] = getattr(errors, name)
    return found


def _kinds() -> list[type[VeoError]]:
    return [_class(name) for name in errors.__all__]


def _full(kind: type[VeoError]) -> VeoError:
    return kind("no luck", **CARRIES.get(kind.__name__, {}), **JOB)


each_kind = pytest.mark.parametrize("kind", _kinds(), ids=errors.__all__)


# --- the tree --------------------------------------------------------------------------------------------


def test_the_tree_is_the_designs() -> None:
    """The module offers the classes of the design, in order, and none that it does not name."""
    assert sorted({"VeoError", *TREE}) == errors.__all__


@pytest.mark.parametrize("name", TREE)
def test_a_class_is_a_kind_of_its_parent(name: str) -> None:
    """The nearest public class above each is the one that the design draws there."""
    above = [base.__name__ for base in _class(name).__mro__[1:] if base.__name__ in errors.__all__]
    assert TREE[name][0] == above[0]


@pytest.mark.parametrize("name", TREE)
def test_a_builtin_catches_what_it_stands_for(name: str) -> None:
    """Code that catches the builtin catches ours, and no other builtin of the tree's catches it by accident."""
    wanted = TREE[name][1]
    assert ([wanted] if wanted else []) == [
        builtin for builtin in BUILTINS if issubclass(_class(name), builtin)
    ]


def test_a_failed_job_is_not_an_answer() -> None:
    """An error of a task and an error of a request are told apart: who catches one does not catch the other."""
    assert not issubclass(JobFailed, ApiError)


@each_kind
def test_no_error_is_a_cancellation(kind: type[VeoError]) -> None:
    """Catching our errors never swallows a cancelled task, and an abandoned job never looks like one."""
    assert issubclass(kind, Exception)
    assert not issubclass(kind, asyncio.CancelledError)


@each_kind
def test_every_class_says_when_it_is_raised(kind: type[VeoError]) -> None:
    """Each class has words of its own, not those of the class above."""
    assert kind.__doc__
    assert kind.__doc__ not in [base.__doc__ for base in kind.__mro__[1:]]


# --- what they carry -------------------------------------------------------------------------------------


@each_kind
def test_the_job_is_none_until_it_is_known(kind: type[VeoError]) -> None:
    """Every error has `key` and `task_id` from the beginning, and both are None."""
    error = kind("no luck")
    assert (None, None) == (error.key, error.task_id)


@each_kind
def test_an_error_can_be_made_of_nothing(kind: type[VeoError]) -> None:
    """Every argument is optional, and an error without words says something all the same."""
    assert str(kind())
    assert str(kind(""))


@each_kind
def test_the_words_carry_the_task_and_the_key(kind: type[VeoError]) -> None:
    """`str()` shows what was said, the task id and the key: a line in a log is enough to find the job."""
    text = str(_full(kind))
    for part in ("no luck", "task task-1", "key order-7"):
        assert part in text


@pytest.mark.parametrize("name", [name for name in CARRIES if "trace_id" in CARRIES[name]])
def test_the_words_carry_the_trace_and_the_code(name: str) -> None:
    """What the vendor's support asks for, and what the API called it, stand in the text."""
    text = str(_full(_class(name)))
    assert "trace trace-1" in text
    assert CARRIES[name]["code"] in text


def test_the_words_leave_out_what_is_not_known() -> None:
    """Nothing in the text says None."""
    assert "no luck" == str(VeoError("no luck"))
    assert "no luck (task t)" == str(VeoError("no luck", task_id="t"))
    assert "no luck" == str(ApiError("no luck"))
    assert "502: bad gateway" == str(ServerError("bad gateway", status=502))
    assert "the task failed" == str(JobFailed())
    assert "ApiError" == str(ApiError())


def test_a_full_text_reads_like_a_sentence() -> None:
    """Status, code and words come first, the evidence follows in brackets."""
    assert "403 used_up: no luck (task task-1, key order-7, trace trace-1)" == str(_full(ApiError))
    assert "api_error: no luck (task task-1, key order-7, trace trace-1)" == str(_full(JobFailed))


def test_no_id_is_told_twice() -> None:
    """Words that name the task themselves are not followed by it; those that name another one are."""
    assert "the server knows no task 12" == str(
        errors.TaskNotFound("the server knows no task 12", task_id="12")
    )
    assert "not task 12 (task 1)" == str(errors.TaskNotFound("not task 12", task_id="1"))


def test_an_evidence_that_came_later_is_shown() -> None:
    """The key and the id are set once the error reaches its job, and the text follows."""
    error = TransportTimedOut("no answer within 60 seconds")
    error.key, error.task_id = "order-7", "task-1"
    assert "no answer within 60 seconds (task task-1, key order-7)" == str(error)


@pytest.mark.parametrize("key", ["auto:0123456789abcdef", "task:task-1"])
def test_a_made_up_key_is_not_told(key: str) -> None:
    """A key that nobody chose is there for programs, and left out of the text."""
    error = VeoError("gone", key=key, task_id="task-1")
    assert "gone (task task-1)" == str(error)
    assert key == error.key


def test_an_invalid_request_lists_every_violation() -> None:
    """Each violation is one sentence; the text holds all of them, and so does a pickle."""
    error = InvalidRequest("prompt must not be empty", "model must be a string, not int", key="order-7")
    assert ("prompt must not be empty", "model must be a string, not int") == error.violations
    assert "prompt must not be empty; model must be a string, not int (key order-7)" == str(error)
    assert error.violations == pickle.loads(pickle.dumps(error)).violations


def test_an_unknown_submission_names_its_candidates() -> None:
    """The ids that may be the submit's stand in the text, and are a tuple whatever they came as."""
    error = SubmissionUnknown("no answer", sent_at=5.0, candidates=["task-2", "task-3"])
    assert ("task-2", "task-3") == error.candidates
    assert "no answer (candidates task-2 task-3)" == str(error)
    assert "no answer" == str(SubmissionUnknown("no answer"))


def test_a_rate_limit_says_how_long() -> None:
    """`retry_after` is in seconds, and None where the server did not say."""
    for kind in (RateLimited, ServerError):
        assert 7.5 == kind("slow down", retry_after=7.5).retry_after
        assert None is kind("slow down").retry_after


@pytest.mark.parametrize("kind", [ConnectionFailed, TransportTimedOut])
def test_an_os_error_of_ours_has_no_number(kind: type[VeoError]) -> None:
    """The builtins behind are `OSError`s: their parsing of arguments does not change our words."""
    error = kind("gone", key="k")
    assert ("gone",) == error.args
    assert "gone (key k)" == str(error)
    assert isinstance(error, OSError)
    assert None is error.errno


# --- pickling, copying, chaining -------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_keeps_everything(kind: type[VeoError], protocol: int) -> None:
    """An error that crosses to another process is of the same class and says and carries the same."""
    error = _full(kind)
    error.add_note("a note")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(error) is type(again)
    assert (str(error), error.args) == (str(again), again.args)
    assert vars(error) == vars(again)
    for name, value in {**CARRIES.get(kind.__name__, {}), **JOB}.items():
        assert value == getattr(again, name), name


@each_kind
def test_an_empty_error_pickles_too(kind: type[VeoError]) -> None:
    """Nothing that is needed to make an error anew is missing from the pickle of the barest one."""
    assert vars(kind()) == vars(pickle.loads(pickle.dumps(kind())))


@each_kind
def test_a_copy_keeps_everything(kind: type[VeoError]) -> None:
    """Each of several awaiters may get a copy of its own, with nothing lost."""
    error = _full(kind)
    assert (str(error), vars(error)) == (str(copy.copy(error)), vars(copy.copy(error)))


@each_kind
def test_a_cause_is_chained(kind: type[VeoError]) -> None:
    """`raise ... from` shows what happened underneath."""
    cause = OSError(104, "connection reset")
    with pytest.raises(kind) as caught:
        raise _full(kind) from cause
    assert cause is caught.value.__cause__
    assert "connection reset" in "".join(traceback.format_exception(caught.value))


def test_abandoning_is_about_the_job() -> None:
    """`JobAbandoned` is caught with the other errors of an accepted task."""
    with pytest.raises(errors.JobError):
        raise JobAbandoned("abandoned", **JOB)
