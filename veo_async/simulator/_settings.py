"""
Settings for everything that the documents leave open, or that the service has changed over time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, get_args

from attrs import field, frozen, validators

__all__ = ["TOKEN", "CallbackUrlForm", "FailedForm", "PendingForm", "Settings"]

TOKEN: Final = "simulator-token"

PendingForm = Literal[
    "absent",
    "null",
    "empty",
    "started",
    "no_data",
    "null_data",
    "running",
    "processing",
    "pending",
    "queued",
    "hiccup",
    "null_error",
    "mixed",
]
FailedForm = Literal["error", "open", "text", "null", "state", "empty_success", "mixed"]
CallbackUrlForm = Literal["whole", "cut_off", "rewritten", "escaped", "absent"]

_RETIRED: Final = ("veo2", "veo2-fast")  # newest, seen live: 400 model is not supported
_ACTIONS: Final = ("text2video", "image2video", "ingredients2video", "get1080p")  # newest
_RATIOS: Final = ("16:9", "9:16")  # newest


def _accounts(value: Any) -> Mapping[str, str]:
    """
    Map each token to its account; without a mapping, each token has its own.
    """
    if isinstance(value, Mapping):
        return dict(value)
    return {token: token for token in ([value] if isinstance(value, str) else value)}


def _without_slash(url: str | None) -> str | None:
    return None if url is None else url.rstrip("/")


def _choice(literal: Any) -> Any:
    return validators.in_(get_args(literal))


def _words(*words: str, default: str | None = None) -> Any:
    return field(default=default or words[0], validator=validators.in_(words))


def _cost(consumption: float, **wanted: Any) -> dict[str, Any]:
    """
    Make a row of a price list: these values of the body, each one or any of several, cost that much.
    """
    rules = [
        {"in" if isinstance(value, list) else "==": [{"var": name}, value]} for name, value in wanted.items()
    ]
    return {"conditions": {"and": rules} if rules else True, "consumption": consumption, "unit": "Credit"}


_FAST: Final = ["veo2-fast", "veo3-fast", "veo31-fast", "veo31-fast-ingredients"]
_PRICES: Final = (  # [C] fast models from 0.65 credits, quality models ten times that, 1080p a tenth
    _cost(0.065, action=["get1080p", "get_1080p"]),
    _cost(0.65, model=_FAST),
    _cost(6.5, model=["veo2", "veo3", "veo31"]),
)
_OTHER_PRICES: Final = {  # [D]
    "/veo/extend": (_cost(1.68, model="veo31-fast"), _cost(12.0, model="veo31")),
    "/veo/upsample": (_cost(0.16, action="1080p"), _cost(0.5, action="4k"), _cost(0.13, action="gif")),
    "/veo/reshoot": (_cost(1.2),),
    "/veo/objects": (_cost(1.5),),
}

_positive: Final[Any] = validators.gt(0)
_not_negative: Final[Any] = validators.ge(0)
_maybe_positive: Final[Any] = validators.optional(_positive)
_share: Final[Any] = validators.and_(validators.ge(0), validators.le(1))


@frozen(kw_only=True)
class Settings:
    """
    How a simulator behaves; the defaults follow the newest documents (2026-10).

    Durations are in seconds. `speed` divides the durations of tasks, and nothing else.

    Attributes:
        seed: the seed of all random choices.
        tokens: valid tokens; a mapping gives each token its account, otherwise each has its own.

        speed: how many times faster than in reality tasks run.
        mean, sigma: of the log-normal durations of tasks. (The median is `mean * exp(-sigma**2 / 2)`.)
        duration: a function from a request's body to its task's duration, instead of a random one.
        failure_share: the share of tasks that fail, 0 to 1.
        failure: the code and the message of a random failure.

        contract: `newest`, or `seed` (2025-12 to 2026-03: no `ingredients2video`, `get_1080p` allowed).
            See also `Settings.oldest()`.
        retired_models: models that are refused with `model is not supported`.
        aspect_ratios: the accepted aspect ratios.
        max_frames: the most images for image2video (newest: 2; seed: 3).
        default_model: for a request without a model.
        unfit_resolution: what `4k` leads to where it is not offered: a failed `task`, or a 400 (`refused`).
        post_processing: `on`, or the code with which the endpoints are refused.

        pending: the form of a pending record's response.
        pending_finished_at: whether `finished_at` of a pending record is absent or null.
        failed: the form of a failed record.
        failed_word: the state word of a failure that is shown by `data[].state`.
        success_word: the state word of a finished video.
        newer_fields: whether records have `started_at`, `finished_at`, `elapsed`.
        times: the form of the times in `data[]`: `iso` with a Z, or `utc8` (local time without an offset).
        video_ids: `hex` or `dashed`.
        videos: how many videos a task makes.
        echo_omits: fields of the submitted body that `request` leaves out.
        echo_defaults: whether `request` names the model that the server chose.
        echo_callback_url: how `request` shows the callback URL: `whole`, `cut_off` (without its query and
            fragment), `rewritten` (means the same, spelled otherwise), `escaped` (as for HTML), or `absent`.
        records_ahead: seconds by which the clock that dates records is ahead; below 0 it is behind.
        date_ahead: seconds by which the clock of the `Date` header is ahead; below 0 it is behind.

        answered_task: the task that a submit's answer names: its `own`; the account's `first`, although each
            submit gets its own task; or the `same` one for submits that differ only in `callback_url`.
        submit_extras: whether an asynchronous submit's answer also has `success` and `trace_id`.
        error_success: whether an error's body also has `success: false`.
        mismatch_status: the status of `token_mismatched`.
        unknown: what `retrieve` answers for an unknown id: `{}`, null, or 404.
        repeats: whether an id asked for twice comes twice.
        max_batch: the most ids in one batch (the vendor recommends at most 50), or None.
        limit_caps_ids: whether `limit` (12 if it is missing) also caps a query by ids.
        count: whether `count` is that of the `page`, or of the whole listing (`total`).
        order: the order of a listing, by creation.
        bounds_inclusive: whether `created_at_min` and `created_at_max` are inclusive.
        listing: `on`, `empty` (always), `unfiltered` (filters are ignored), or `refused` (400).
        forget_after: the seconds after which lookups and listings lose a finished task, to save memory; None is never.
        late: how long a new task stays invisible to lookups and listings.

        max_in_flight: how many unfinished tasks an account may have, or None.
        submits_per_second, polls_per_second: the limits of one token, or None.
        retry_after: the form of a 429's `Retry-After`, or `none`.
        balance: how many videos an account may buy, or None.

        files_url: the start of `video_url`; None is the simulator's own address.
        file_size: each file is padded to this many bytes (and stays playable); None leaves it small.
        link_lifetime: how long a new link works, or None.
        expired_status: the status of an expired link.

        platform: `on`, or how the platform beside the API is out of order: `absent` (404), `failing` (500), `html`
            (a page with status 200), or `other` (JSON of another shape).
        account_tokens: valid account tokens, which the platform takes and the API does not, each with its account;
            None makes one of each token of the API, with `platform-` before it.
        upload_field: the field of an upload's answer that has the file's address.
        max_upload: the largest file that can be uploaded, in bytes.
        prices: the price list of `/veo/videos`: rows of `conditions` (JsonLogic over the body), `consumption` in
            credits, and `unit`; the first whose conditions hold counts.
        credits: what an account has, before anything is deducted.
        other_prices: the price lists of the other endpoints.

        callbacks: `loopback` delivers only to this machine, `any` to any host, `off` to none.
            A callback URL that ends in `/health` is a placeholder, and counts as delivered.
        callback_attempts: how often a callback is tried.
    """

    seed: int = 0
    tokens: Mapping[str, str] = field(default=TOKEN, converter=_accounts)

    speed: float = field(default=1.0, validator=_positive)
    mean: float = field(default=105.0, validator=_positive)
    sigma: float = field(default=0.38, validator=_not_negative)
    duration: Callable[[Mapping[str, Any]], float] | None = None
    failure_share: float = field(default=0.0, validator=_share)
    failure: tuple[str, str] = ("api_error", "fetch failed")

    contract: Literal["newest", "seed"] = _words("newest", "seed")
    retired_models: tuple[str, ...] = field(default=_RETIRED, converter=tuple)
    aspect_ratios: tuple[str, ...] = field(default=_RATIOS, converter=tuple)
    max_frames: int = field(default=2, validator=_positive)
    default_model: str = "veo31-fast"
    unfit_resolution: Literal["task", "refused"] = _words("task", "refused")
    post_processing: Literal["on", "no_api", "api_not_implemented"] = _words(
        "on", "no_api", "api_not_implemented"
    )

    pending: PendingForm = field(default="absent", validator=_choice(PendingForm))
    pending_finished_at: Literal["absent", "null"] = _words("absent", "null")
    failed: FailedForm = field(default="error", validator=_choice(FailedForm))
    failed_word: str = "failed"
    success_word: str = "succeeded"
    newer_fields: bool = True
    times: Literal["iso", "utc8"] = _words("iso", "utc8")
    video_ids: Literal["hex", "dashed"] = _words("hex", "dashed")
    videos: int = field(default=1, validator=validators.in_(range(9)))
    echo_omits: frozenset[str] = field(default=frozenset(), converter=frozenset)
    echo_defaults: bool = False
    echo_callback_url: CallbackUrlForm = field(default="whole", validator=_choice(CallbackUrlForm))
    records_ahead: float = 0.0
    date_ahead: float = 0.0

    answered_task: Literal["own", "first", "same"] = _words("own", "first", "same")
    submit_extras: bool = False
    error_success: bool = False
    mismatch_status: int = field(default=401, validator=validators.in_((400, 401)))
    unknown: Literal["{}", "null", "404"] = _words("{}", "null", "404")
    repeats: bool = True
    max_batch: int | None = field(default=50, validator=_maybe_positive)
    limit_caps_ids: bool = False
    count: Literal["page", "total"] = _words("page", "total")
    order: Literal["newest", "oldest"] = _words("newest", "oldest")
    bounds_inclusive: bool = True
    listing: Literal["on", "empty", "unfiltered", "refused"] = _words("on", "empty", "unfiltered", "refused")
    late: float = field(default=0.0, validator=_not_negative)

    forget_after: float | None = field(default=None, validator=_maybe_positive)

    max_in_flight: int | None = field(default=None, validator=_maybe_positive)
    submits_per_second: float | None = field(default=None, validator=_maybe_positive)
    polls_per_second: float | None = field(default=None, validator=_maybe_positive)
    retry_after: Literal["none", "seconds", "date"] = _words("none", "seconds", "date")
    balance: int | None = field(default=None, validator=validators.optional(_not_negative))

    files_url: str | None = field(default=None, converter=_without_slash)
    file_size: int | None = field(default=None, validator=_maybe_positive)
    link_lifetime: float | None = field(default=None, validator=_maybe_positive)
    expired_status: int = field(default=403, validator=validators.in_((403, 404, 410)))

    platform: Literal["on", "absent", "failing", "html", "other"] = _words(
        "on", "absent", "failing", "html", "other"
    )
    account_tokens: Mapping[str, str] | None = None
    upload_field: Literal["file_url", "url"] = _words("file_url", "url")
    max_upload: int = field(default=100_000_000, validator=_positive)
    prices: tuple[Mapping[str, Any], ...] = field(default=_PRICES, converter=tuple)
    credits: float = 100.0
    other_prices: Mapping[str, tuple[Mapping[str, Any], ...]] = field(factory=lambda: dict(_OTHER_PRICES))

    callbacks: Literal["loopback", "any", "off"] = _words("loopback", "any", "off")
    callback_attempts: int = field(default=1, validator=_positive)

    @property
    def actions(self) -> tuple[str, ...]:
        """
        The actions of `/veo/videos`.
        """
        return (
            _ACTIONS if self.contract == "newest" else ("text2video", "image2video", "get1080p", "get_1080p")
        )

    @classmethod
    def oldest(cls, **changes: Any) -> Settings:
        """
        Return settings that follow the integration guide of 2025-12 to 2026-03.
        """
        seed: dict[str, Any] = {
            "contract": "seed",
            "retired_models": (),
            "aspect_ratios": ("16:9", "9:16", "3:4", "4:3", "1:1"),
            "max_frames": 3,
            "unfit_resolution": "refused",
            "post_processing": "no_api",
            "newer_fields": False,
            "times": "utc8",
            "mismatch_status": 400,
            "max_batch": None,
        }
        return cls(**(seed | changes))
