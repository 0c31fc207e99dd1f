"""What a check found."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        reason: why it failed, or why that was expected. advice: where it failed, what that means and the usual causes.
    """

    name: str
    status: Literal["passed", "failed", "expected", "unexpectedly passed"]
    reason: str = ""
    advice: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""
        return self.status in ("passed", "expected")

    def __str__(self) -> str:
        said = [f"{self.name}: {self.status}", self.reason, self.advice]
        return "\n".join(line for line in said if line)


def promise_of(check: Callable[[Any], None]) -> str:
    """What a check proves, what failing means, and the usual causes: its docstring."""
    return inspect.cleandoc(check.__doc__ or "")


def advice_of(check: Callable[[Any], None]) -> str:
    """What failing means, and the usual causes, in one line: from "Failing means" on."""
    text = " ".join(promise_of(check).split())
    return text[max(text.find("Failing means"), 0) :]
