"""
What was bought, and whether anything was bought twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import field, frozen

from .._api.marks import marks_of
from ..simulator import Task, type_of

__all__ = ["Purchase", "bought", "bought_twice"]


@frozen(kw_only=True)
class Purchase:
    """
    One task that the account pays for, since it has not failed and will not.

    Attributes:
        task_id: the task's id.
        type: what was asked for: `text2video`, `image2video`, `ingredients2video`, `get1080p`, `upsample`, `extend`,
            `reshoot` or `objects`.
        prompt: the prompt, or None.
        body: the fields as they were submitted.
    """

    task_id: str
    type: str
    prompt: str | None
    body: Mapping[str, Any] = field(repr=False)

    @property
    def request(self) -> str:
        """
        What was asked for, without what tells one submit from another; equal requests have equal texts.
        """
        body = {name: value for name, value in self.body.items() if name != "callback_url"}
        return json.dumps([self.type, body], sort_keys=True)

    @property
    def key(self) -> str:
        """
        What the mark says of the job's key: equal keys have equal texts. Without a mark, it is the request.
        """
        marks = marks_of(str(self.body.get("callback_url", "")))
        return marks[0].name if marks else self.request

    def __str__(self) -> str:
        return f"{self.type} {self.prompt!r}" if self.prompt else f"{self.type} {dict(self.body)}"


def bought(tasks: Iterable[Task]) -> list[Purchase]:
    """
    Return what is paid for, in the order of acceptance.
    """
    return [
        Purchase(
            task_id=task.id,
            type=type_of(task.path, task.body),
            prompt=task.body.get("prompt"),
            body=task.body,
        )
        for task in tasks
        if task.error is None and task.videos
    ]


def bought_twice(purchases: Iterable[Purchase], by: Literal["request", "key"]) -> list[list[Purchase]]:
    """
    Return the purchases that have the same request, or the same key, as another.
    """
    groups: dict[str, list[Purchase]] = {}
    for purchase in purchases:
        groups.setdefault(getattr(purchase, by), []).append(purchase)
    return [group for group in groups.values() if len(group) > 1]
