"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Verdict:
    """What a check found: ``reason`` says why it failed, or why that was expected."""

    name: str
    status: Literal["passed", "failed", "expected", "unexpectedly passed"]
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""
        return self.status in ("passed", "expected")
