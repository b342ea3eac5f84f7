r"""`\boxed{...}` in a text: one pass, whatever the text repeats or leaves open."""

import re
from typing import NamedTuple


class Box(NamedTuple):
    r"""A `\boxed{...}`: where it stands, what it holds, and whether its closing brace was there."""

    start: int
    end: int
    content: str
    closed: bool


LONGEST_LINE = 400
_OPENS = re.compile(r"\\(?:boxed|fbox|framebox)[ \n]*")
_BRACES = re.compile(r"\\(?:boxed|fbox|framebox)[ \n]*\{?|\\.|[{}]", re.DOTALL)
_JOINS = re.compile(
    r"(?:[\s,;.&~$]|\\[,;:!)(\]\[ ]|\\\\|\\q?quad|\\(?:text|mathrm|textbf)\{\s*(?:and|or|,)?\s*\}|and|or)*"
)
_EMPTY = re.compile(
    r"(?:[\s{}~$.,?…_]|\\[,;:! _]|\\(?:text|mathrm|textbf|mathbf|placeholder|[lc]?dots|q?quad)(?![A-Za-z]))*"
    r"(?:(?:(?:your|the|final) ){0,3}answer(?: here)?[\s.}]*)?",
    re.IGNORECASE,
)


def boxes_in(text: str) -> list[Box]:
    r"""The outermost boxes of `text`, in order. `\boxed 7` takes one character, as in TeX.

    A box that is never closed hides nothing: the boxes inside it count as well, and it is itself listed as not closed.
    """
    found: list[Box] = []
    open_braces: list[tuple[int, int] | None] = []  # per open brace: where its box and its content begin
    for match in _BRACES.finditer(text):
        token = match[0]
        if token == "{":
            open_braces.append(None)
        elif token == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None:
                begin, content = opened
                while found and found[-1].start > begin:
                    found.pop()  # nested in this one
                found.append(Box(begin, match.end(), text[content : match.start()], closed=True))
        elif _OPENS.match(token):
            if token.endswith("{"):
                open_braces.append((match.start(), match.end()))
            elif match.end() < len(text) and text[match.end()] not in "\\}":
                found.append(Box(match.start(), match.end() + 1, text[match.end()], closed=True))
    unclosed = [Box(opened[0], len(text), text[opened[1] :], closed=False) for opened in open_braces if opened]
    # Of many unclosed boxes, each holding the rest of the text, the last says all that matters.
    return sorted(found + unclosed[-1:])


def completed_box(cue: str, text: str) -> str | None:
    r"""What `text` puts into the box that `cue` leaves open, as `The answer is \boxed{` does; None if it opens none.

    A model that ends its turn without closing the box has put in its first line.
    """
    if not any(not box.closed for box in boxes_in(cue)):
        return None
    depth = 1
    for match in _BRACES.finditer(text):
        depth += match[0].endswith("{") - match[0].endswith("}") if match[0][:2] not in (r"\{", r"\}") else 0
        if depth == 0:
            return text[: match.start()].strip()
    return next(iter(text.strip().splitlines()), "").strip()


class Boxed(NamedTuple):
    r"""What the boxes of a text say: the last answer, and how many adjacent boxes it spans."""

    content: str
    boxes: int


def boxed_answer(text: str) -> Boxed | None:
    r"""The content of the last box that holds something; None if there is none. It is empty if the answer was cut.

    Empty boxes are skipped: prompts ask for an answer in `\boxed{}`, and models repeat them. Boxes with nothing but
    "and", "or" or punctuation between them are one list, joined by commas. If the text ends inside a box, the answer
    was cut, unless it was about to repeat the box before it.
    """
    boxes = [box for box in boxes_in(text) if not box.closed or not _EMPTY.fullmatch(box.content)]
    if not boxes:
        return None
    last = boxes[-1]
    if not last.closed:
        said = last.content.strip()
        closed = [box for box in boxes if box.closed and box.start < last.start]
        if (
            not closed
            or not closed[-1].content.strip().startswith(said)
            or not (said or _line_before(text, last) == _line_before(text, closed[-1]))
        ):
            return Boxed("", 1)
        boxes = closed
    group = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.end : group[0].start]
        if len(between) > 40 or not _JOINS.fullmatch(between):
            break
        group.insert(0, box)
    contents = list(dict.fromkeys(box.content.strip() for box in group))
    return Boxed(", ".join(contents), len(contents))


def _line_before(text: str, box: Box) -> str:
    """What stands on its line before a box."""
    return text[max(0, box.start - LONGEST_LINE) : box.start].rpartition("\n")[2].strip()
