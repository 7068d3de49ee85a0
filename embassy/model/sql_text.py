"""The text of SQL, as far as it takes to tell one statement of a query string from the others. Pure.

It knows where strings, quoted names, comments, parentheses and the bodies of SQL functions end, and the words with which
a statement begins; nothing else.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n\r]*)
  | (?P<comment>/\*)
  | (?P<escape>[eE]'(?:[^'\\]|''|\\.)*')
  | (?P<string>(?:[uU]&|[bBxXnN])?'(?:[^']|'')*')
  | (?P<name>(?:[uU]&)?"(?:[^"]|"")*")
  | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | (?P<number>[0-9][0-9A-Za-z_.]*|\$[0-9]+)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_NAME = '"'
"""Stands for a quoted name among the words of a statement."""

_MODIFIERS = {
    "CREATE": frozenset(
        {"OR", "REPLACE", "TEMP", "TEMPORARY", "UNLOGGED", "GLOBAL", "LOCAL", "UNIQUE", "RECURSIVE", "TRUSTED"}
        | {"PROCEDURAL", "CONSTRAINT", "DEFAULT"}
    ),
    "ALTER": frozenset(["PROCEDURAL"]),
    "DROP": frozenset(["PROCEDURAL"]),
}
"""Words between a command and the kind of object, which tags leave out."""
_WITHOUT_TRIGGERS = frozenset(["DATABASE", "TABLESPACE", "ROLE", "USER", "GROUP", "PARAMETER"])
"""Objects of the whole server: their commands fire no event trigger."""


class Word(NamedTuple):
    """A word or a sign outside parentheses."""

    text: str
    """In capitals; a double quote for a quoted name."""
    start: int
    end: int


class Statement(NamedTuple):
    """One statement of a query string."""

    text: str
    """Without what separates it from others."""
    words: tuple[Word, ...]
    """Those outside parentheses; positions are those of ``text``."""

    def begins(self, *texts: str) -> bool:
        """Whether these are its first words."""
        return tuple([word.text for word in self.words[: len(texts)]]) == texts

    def has(self, text: str) -> bool:
        """Whether a word stands in it, outside parentheses."""
        return any(word.text == text for word in self.words)


class Unreadable(ValueError):  # noqa: N818 - it says what the text is
    """The text ends within a string, a comment, parentheses or a function's body, or does not tell what is asked."""


@lru_cache(maxsize=8)
def statements(text: str, *, backslashes: bool = False) -> tuple[Statement, ...]:
    """The statements of a query string, empty ones left out.

    Args:
        text: what a client sent, whole.
        backslashes: whether a backslash escapes in plain strings (``standard_conforming_strings`` is off).

    Raises:
        Unreadable: it ends too early.
    """
    found: list[Statement] = []
    words: list[Word] = []
    parentheses = bodies = 0
    start = end = -1
    at = 0
    while at < len(text):
        kind, upto = _next(text, at, backslashes=backslashes)
        if kind == "space":
            at = upto
            continue
        piece = text[at:upto]
        if piece == ";" and not parentheses and not bodies:
            if start >= 0:
                found.append(_statement(text, words, start, end))
            words, start = [], -1
        else:
            if start < 0:
                start = at
            end = upto
            if kind == "word":
                bodies = _bodies(piece.upper(), words, bodies)
            parentheses += {"(": 1, ")": -1}.get(piece, 0)
            if not parentheses and kind in ("word", "name", "other"):
                words.append(Word(_NAME if kind == "name" else piece.upper(), at, upto))
        at = upto
    if parentheses > 0 or bodies:
        raise Unreadable("it ends within parentheses or a function's body")
    if start >= 0:
        found.append(_statement(text, words, start, end))
    return tuple(found)


def pick(text: str, tag: str, nth: int, *, backslashes: bool = False) -> Statement:
    """The statement of a query string that was its ``nth`` command with a tag.

    Raises:
        Unreadable: the string does not tell.
    """
    all_of = statements(text, backslashes=backslashes)
    candidates = [statement for statement in all_of if is_tagged(statement, tag)]
    if len(candidates) == 1:
        return candidates[0]
    if len(candidates) < nth:
        raise Unreadable(f"it has {len(candidates) or 'no'} statements that are {tag}, and this was number {nth}")
    if any(statement.begins(word) for statement in all_of for word in ("ROLLBACK", "ABORT")):
        raise Unreadable(f"it has {len(candidates)} statements that are {tag}, and rolls back")
    return candidates[nth - 1]


_CONTEXT = 'SQL statement "'
_SCRIPT = "\nextension script file "
_CONTEXT_END = re.compile(r'"(?=\Z|\n(?:PL/|SQL |extension script |[\w/]+ function ))')


def innermost(context: str, tag: str, nth: int = 0, *, backslashes: bool = False) -> Statement | None:
    """The statement that PostgreSQL's error context begins with: whole, in quotes, before whoever ran it.

    EXECUTE can be given several, and again; ``nth`` counts through all rounds, and is 0 where nobody has counted.
    None: an extension's script ran it.

    Raises:
        Unreadable: it does not begin with a statement of this tag, or with several and does not tell which.
    """
    if not context.startswith(_CONTEXT):
        raise Unreadable(f"it was run by {context.partition(chr(10))[0]}, which does not tell its text")
    for end in _CONTEXT_END.finditer(context, len(_CONTEXT)):
        try:
            found = statements(context[len(_CONTEXT) : end.start()], backslashes=backslashes)
        except Unreadable:
            continue
        tagged = [statement for statement in found if is_tagged(statement, tag)]
        if len(tagged) > 1 and not nth:
            raise Unreadable(f"its context has {len(tagged)} statements that are {tag}")
        if tagged:
            return None if context.startswith(_SCRIPT, end.end()) else tagged[(nth - 1) % len(tagged)]
        if any(map(of_extension, found)):
            return None  # up to version 17 the context does not name the script
    raise Unreadable(f"its context has no statement that is {tag}")


def of_extension(statement: Statement) -> bool:
    """Whether a script may run behind it, whose commands fire event triggers, too."""
    return statement.begins("CREATE", "EXTENSION") or statement.begins("ALTER", "EXTENSION")


def is_tagged(statement: Statement, tag: str) -> bool:
    """Whether PostgreSQL would name a statement so, if it is one that fires event triggers."""
    words = [word.text for word in statement.words]
    kind, *rest = tag.split()
    if words[:1] != [kind]:
        return False
    if kind in ("GRANT", "REVOKE", "COMMENT", "SECURITY"):
        where = words.index("ON") + 1 if "ON" in words else 0
        named = words[where + 1 : where + 2] in (
            [word] for word in (",", ".", "TO", "FROM")
        )  # a table has that name
        return where > 0 and (named or not _WITHOUT_TRIGGERS.intersection(words[where : where + 1]))
    begin = 1
    while begin < len(words) and words[begin] in _MODIFIERS.get(kind, ()):
        begin += 1
    upto = begin + len(rest)
    if tag == "CREATE TABLE" and "AS" in words:
        return False  # CREATE TABLE AS
    if rest == ["OPERATOR"] and words[upto : upto + 1] in (["CLASS"], ["FAMILY"]):
        return False
    return words[begin:upto] == rest


def without_concurrently(statement: Statement) -> str:
    """A statement as it can run in a transaction, leaving the same behind."""
    for word in statement.words:
        if word.text == "CONCURRENTLY":
            return statement.text[: word.start] + statement.text[word.end :]
    *before, last = statement.words
    if last.text == "FINALIZE" and before[-1].text != "." and any(word.text == "DETACH" for word in before[:-2]):
        return statement.text[: last.start]  # what an interrupted DETACH … CONCURRENTLY has begun
    return statement.text


def without_validation(text: str, *, backslashes: bool = False) -> str | None:
    """ALTER TABLE with its new foreign keys NOT VALID, so that it looks at no row for them; None if it adds none.

    Raises:
        Unreadable: as for `statements`.
    """
    (statement,) = statements(text, backslashes=backslashes)
    if not statement.begins("ALTER", "TABLE"):
        return None
    words = statement.words
    commas = [i for i, word in enumerate(words) if word.text == ","]
    found, upto = statement.text, len(words)
    for start in reversed([-1, *commas]):
        clause = [word.text for word in words[start + 1 : upto]]
        if _adds_foreign_key(clause) and ["NOT", "VALID"] not in [clause[i : i + 2] for i in range(len(clause))]:
            end = words[upto - 1].end
            found = f"{found[:end]} NOT VALID{found[end:]}"
        upto = start
    return None if found == statement.text else found


def validated_constraint(text: str, *, backslashes: bool = False) -> str | None:
    """The constraint's name, as it is written, of an ALTER TABLE that validates one and does nothing else.

    Raises:
        Unreadable: as for `statements`.
    """
    (statement,) = statements(text, backslashes=backslashes)
    words = [word.text for word in statement.words]
    if words[:2] != ["ALTER", "TABLE"] or words[-3:-1] != ["VALIDATE", "CONSTRAINT"] or "," in words:
        return None
    return statement.text[statement.words[-1].start : statement.words[-1].end]


def _adds_foreign_key(clause: list[str]) -> bool:
    """Whether a clause is ADD [CONSTRAINT name] FOREIGN KEY; these words name nothing else unless they are quoted."""
    if "FOREIGN" not in clause:
        return False
    before = clause[: clause.index("FOREIGN")]
    return before[-1:] == ["ADD"] or before[-3:-1] == ["ADD", "CONSTRAINT"]


def _statement(text: str, words: list[Word], start: int, end: int) -> Statement:
    moved = tuple([Word(word.text, word.start - start, word.end - start) for word in words])
    return Statement(text[start:end], moved)


def _bodies(word: str, words: list[Word], bodies: int) -> int:
    """How deep in ``BEGIN ATOMIC … END`` it is after a word; CASE ends with END as well."""
    if word == "ATOMIC" and words and words[-1].text == "BEGIN":
        return 1
    if bodies and word == "CASE":
        return bodies + 1
    if bodies and word == "END":
        return bodies - 1
    return bodies


def _next(text: str, at: int, *, backslashes: bool) -> tuple[str, int]:
    """The kind of what stands at a position, and where it ends."""
    if backslashes and text[at] == "'":
        match = re.compile(r"'(?:[^'\\]|''|\\.)*'", re.DOTALL).match(text, at)
        if match is None:
            raise Unreadable("it ends within a string")
        return "string", match.end()
    match = _TOKEN.match(text, at)
    assert match is not None, "any character is a token"
    kind = match.lastgroup or ""
    if kind == "comment":
        return "space", _comment_end(text, match.end())
    if kind == "dollar":
        end = text.find(match[0], match.end())
        if end < 0:
            raise Unreadable("it ends within a string")
        return "string", end + len(match[0])
    if kind == "other" and match[0] in "'\"":
        raise Unreadable("it ends within a string or a quoted name")
    return kind, match.end()


def _comment_end(text: str, at: int) -> int:
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, at)
        if edge is None:
            raise Unreadable("it ends within a comment")
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at
