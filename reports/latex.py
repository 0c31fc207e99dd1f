r"""The table in LaTeX: a fragment that needs booktabs and multirow alone, or a whole document around it."""

from __future__ import annotations

from collections.abc import Sequence

from .caption import Notes, caption
from .cells import cells, percent, titles, whole_or_tenth
from .latex_size import OF_PAPER, PAGE, SEPARATION, broken, dealt, room_below, seen, size_of, stacked
from .latex_text import breakable, document, escape, label_of
from .rows import Block, Row, Table, Value

_MOST_PROBLEMS = 10
"""What is missing is told, but does not fill a paper."""

_HEADINGS = 4
"""Lines of a block that are no rows."""

_LINE = 100
"""Characters of a line of the notes."""


def to_latex(table: Table, standalone: bool = False) -> str:
    """The fragment, or a document that can be compiled; ASCII, and the same bytes for the same table."""
    notes = Notes(table)
    words = " ".join(caption(table))
    pages = _pages(table.blocks, room_below(len(words)))
    lengths = _lengths(table, notes)
    parts = dealt(lengths, OF_PAPER)  # the results are one table as long as the page holds it
    bodies = [_tabular(table, page, notes, places) for page in pages for places in parts]
    size = size_of([[lengths[place] for place in places] for places in parts])
    bodies = [[size, rf"\setlength{{\tabcolsep}}{{{SEPARATION}pt}}", *body] for body in bodies]
    first, *further = _dealt(_notes(notes), _left(pages, words))
    bodies[-1] += _below(first)
    bodies += [_below(lines) for lines in further]
    floats = [[*_head(table, words, number), *body, r"\end{table*}"] for number, body in enumerate(bodies, start=1)]
    fragment = "% needs \\usepackage{booktabs} and \\usepackage{multirow}\n"
    fragment += "\n\n".join("\n".join(lines) for lines in floats) + "\n"
    return document(fragment) if standalone else fragment


def _pages(blocks: Sequence[Block], room: int) -> list[list[Block]]:
    """The blocks, dealt out to floats, of which the first has so many lines; one that is too long is cut."""
    pages: list[list[Block]] = [[]]
    for block in blocks:
        start = 0
        while start < len(block.rows):
            most = PAGE if pages[-1] else max(5, room - _HEADINGS)
            piece = Block(block.title, block.rows[start : start + most])
            if pages[-1] and _height(piece) > room:
                pages.append([])
                room = PAGE
                continue
            pages[-1].append(piece)
            room -= _height(piece)
            start += len(piece.rows)
    return pages


def _left(pages: Sequence[Sequence[Block]], words: str) -> int:
    """Lines that are left on the last page."""
    return (room_below(len(words)) if len(pages) == 1 else PAGE) - sum(_height(block) for block in pages[-1])


def _height(block: Block) -> int:
    """Lines of a block, of which long names take several."""
    return sum(len(broken(row.method)) for row in block.rows) + len(block.groups()) + 1


def _dealt(lines: Sequence[str], room: int) -> list[list[str]]:
    """The notes that fit into ``room`` lines, then those of further floats."""
    dealt: list[list[str]] = [[]]
    for line in lines:
        height = 1 + len(line) // _LINE
        if height > room:
            dealt.append([])
            room = PAGE
        dealt[-1].append(line)
        room -= height
    return dealt


def _head(table: Table, words: str, number: int) -> list[str]:
    label = label_of("-".join(dict.fromkeys(row.dataset for row in table.rows)))
    words = escape(words)
    if number > 1:
        words, label = rf"Table~\ref{{{label}}}, continued.", f"{label}-{number}"
    return [
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{words}}}",
        rf"\label{{{label}}}",
        r"\par\medskip",
    ]


def _tabular(table: Table, blocks: Sequence[Block], notes: Notes, places: Sequence[int]) -> list[str]:
    """The columns at ``places`` of some blocks."""
    head = [_head_of(table)[place] for place in places]
    lines = [
        r"\makebox[\linewidth]{%",
        rf"\begin{{tabular}}{{@{{}}l{'r' * (len(head) - 1)}@{{}}}}",
        r"\toprule",
        *_head_lines(head),
    ]
    for block in blocks:
        lines.append(r"\midrule")
        if len(table.blocks) > 1:
            lines.append(_across(len(head), rf"\textbf{{{escape(block.title)}}}"))
        for i, (level, rows) in enumerate(block.groups()):
            if i:
                lines.append(r"\midrule")
            lines.append(_across(len(head), rf"\textit{{{escape(level)}}}"))
            for row in rows:
                cells = _cells(table, row, notes)
                lines.append(" & ".join(cells[place] for place in places) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}}"]


def _head_of(table: Table) -> list[str]:
    return ["Method", *titles(table), "Seconds"]


def _head_lines(titles: Sequence[str]) -> list[str]:
    """Two lines: a title with a hyphen is broken there, the others span both."""
    upper, lower = [], []
    for i, title in enumerate(titles):
        first, hyphen, second = title.partition("-")
        position = "l" if i == 0 else "c"
        text = rf"\multirow{{2}}{{*}}{{{escape(title)}}}" if not hyphen else f"{first}-"
        upper.append(rf"\multicolumn{{1}}{{{position}}}{{{text}}}" if i else text)
        lower.append(rf"\multicolumn{{1}}{{{position}}}{{{escape(second)}}}" if second else "")
    return [" & ".join(upper) + r" \\", " & ".join(lower) + r" \\"]


def _across(columns: int, text: str) -> str:
    return rf"\multicolumn{{{columns}}}{{@{{}}l}}{{{text}}} \\"


def _cells(table: Table, row: Row, notes: Notes) -> list[str]:
    return [_name(row, notes), *cells(table, row, _value, escape), escape(whole_or_tenth(row.seconds))]


def _name(row: Row, notes: Notes) -> str:
    name = notes.name(row)
    lines = [escape(line) for line in broken(name.method)]
    text = lines[0] if len(lines) == 1 else stacked([lines[0], *[rf"\quad {line}" for line in lines[1:]]], "t", "l")
    text += _raised(name.marks)
    return f"{text} ({escape(name.setting)})" if name.setting else text


def _raised(marks: Sequence[str]) -> str:
    return "".join(rf"\textsuperscript{{{escape(mark)}}}" for mark in marks)


def _value(value: Value | None) -> str:
    if value is None:
        return "--"
    mean = percent(value.mean).replace("-", "$-$")
    text = {1: rf"\textbf{{{mean}}}", 2: rf"\underline{{{mean}}}", None: mean}[value.rank]
    return text if value.std is None else rf"{text} $\pm$ {percent(value.std)}"


def _lengths(table: Table, notes: Notes) -> list[int]:
    """Signs of the longest line of each column."""
    head = _head_of(table)
    lengths = [max(map(len, title.split("-"))) if "-" in title else len(title) for title in head]
    for row in table.rows:
        cells = [seen(cell) for cell in _cells(table, row, notes)]
        name = notes.name(row)
        setting = f" ({name.setting})" if name.setting else ""
        cells[0] = max(map(len, broken(name.method))) + len(name.marks) + len(setting)
        lengths = [max(pair) for pair in zip(lengths, cells, strict=True)]
    return lengths


def _notes(notes: Notes) -> list[str]:
    """Legend and what is missing."""
    lines = [f"{_raised([mark])} {escape(text)}" for mark, text in notes.legend()]
    problems = notes.problems(_MOST_PROBLEMS)
    return lines + (["Not in the table:", *[breakable(escape(problem)) for problem in problems]] if problems else [])


def _below(lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    opening = r"\begin{minipage}{\linewidth}\footnotesize\raggedright"
    return [r"\par\smallskip", opening, " \\\\\n".join(lines), r"\end{minipage}"]
