"""Errors a user can mend: who, what was given, what is allowed, how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 40


class ZooError(Exception):
    """Something the user can mend; the command line prints it without a traceback."""


class DivergedError(ZooError):
    """A loss became NaN or infinite; the trial stops, the others go on."""


def unknown(kind: str, given: str, known: Iterable[str], note: str = "") -> ZooError:
    """The error for a name that is not known: what was meant, what there is, where it was looked for."""
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    if len(names) > _MOST_LISTED:
        near = difflib.get_close_matches(given, names, n=5, cutoff=0.3)
        names = [*sorted(near or names[:5]), f"... ({len(names)} in all)"]
    listing = ", ".join(names) if names else "none"
    return ZooError(f"unknown {kind} {given!r}{hint} Known: {listing}{'; ' + note if note else ''}.")
