"""Plain text as LaTeX shows it, whatever stands in it."""

from __future__ import annotations

import re
import unicodedata

from .caption import DAGGER, DOUBLE_DAGGER, SECTION

_NOTHING = "\0"

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "_": r"\_",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': r"{\ttfamily\char34}",  # straight, as commands need it
    "`": "{`}",
    "[": "{[}",  # at the start of a row it would be an argument of the row before
    "*": "{*}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "—": "---",
    "’": "'",
    _NOTHING: "{}",
    DAGGER: r"$\dagger$",
    DOUBLE_DAGGER: r"$\ddagger$",
    SECTION: r"\S{}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
}

_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u0327": "c"}


def escape(text: str) -> str:
    """Text that LaTeX shows as it is; characters it has no sign for as ``[U+65E5]``."""
    text = re.sub(r"-(?=-)", f"-{_NOTHING}", " ".join(text.split()))  # two hyphens would become a dash
    return "".join(_escaped(sign) for sign in text)


def _escaped(sign: str) -> str:
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign.isascii() and sign.isprintable():
        return sign
    parts = unicodedata.normalize("NFD", sign)
    if len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{[}}U+{ord(sign):04X}]"


def label_of(name: str) -> str:
    """The label of a table: ``tab:`` and what of the name may stand in one."""
    return f"tab:{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'results'}"


def breakable(text: str) -> str:
    """Escaped text that may be broken after a slash, a comma or an equals sign, as paths and commands need."""
    return re.sub(r"([/,=])(?=\S)", r"\1\\allowbreak{}", text)


def document(fragment: str) -> str:
    """A whole document around tables."""
    return "\n".join(
        [
            r"\documentclass[a4paper]{article}",
            r"\usepackage[margin=2cm]{geometry}",
            r"\usepackage{booktabs}",
            r"\usepackage{multirow}",
            r"\pagestyle{empty}",
            r"\begin{document}",
            fragment.rstrip("\n"),
            r"\end{document}",
            "",
        ]
    )
