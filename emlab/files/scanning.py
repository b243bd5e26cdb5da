"""JSON read item by item, so that a file of years needs the memory of one entry.

Imports of emlab entries and errors.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator

from emlab.entries import MAX_ENTRY_BYTES
from emlab.errors import BadEntry
from emlab.files.extended import plain
from emlab.files.opening import Reader

PART_BYTES = 256 << 10
MAX_ITEM = 4 * MAX_ENTRY_BYTES  # characters; what surrounds an entry's text in a file may be wide
_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_NAME = re.compile(r'\{[ \t\r\n]*(?:\}|"((?:[^"\\]|\\.){0,256})")')
_DECODER, _CONVERTING = json.JSONDecoder(), json.JSONDecoder(object_hook=plain)
_OTHERS = re.compile(r'"\$(?:binary|date|number)')  # rare, and a hook for every object takes twice the time


class Scanner:
    """JSON values one after the other out of a file's text."""

    def __init__(self, file: Reader) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._at = 0
        self._before = 0  # characters that were dropped
        self._ended = False

    def next(self) -> str:
        """The next character that is no space, not taken; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # matches always
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, expected: str) -> None:
        """The next character is this one, and taken. Raises BadEntry."""
        if self.next() != expected:
            raise self.wrong(f"there should be {expected!r}")
        self._at += 1

    def first_name(self) -> str:
        """The name of the first field of the object that comes next, not taken; "" if it has none."""
        self.next()
        while (match := _FIRST_NAME.match(self._text, self._at)) is None:
            if len(self._text) - self._at > PART_BYTES or not self._more():
                raise self.wrong("there should be an object")
        return match[1] or ""

    def value(self) -> object:
        """The next value, taken. Raises BadEntry."""
        self.next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                if _OTHERS.search(self._text, self._at, end):
                    value, end = _CONVERTING.raw_decode(self._text, self._at)
            except json.JSONDecodeError as exc:  # also when the rest of it has not been read yet
                inside = exc.pos - self._at
                if len(self._text) - self._at > MAX_ITEM:
                    raise self.wrong(f"{exc.msg}, or an item of more than {MAX_ITEM} characters", inside) from exc
                if not self._more():
                    raise self.wrong(exc.msg, inside) from exc
            except (ValueError, RecursionError) as exc:
                raise self.wrong("a number too long, or nested too deeply") from exc
            else:
                length = end - self._at
                if end < len(self._text) or not self._more():  # a number may go on in the next part
                    self._at += length
                    return value

    def items(self) -> Iterator[object]:
        """The items of the list that comes next, one by one. Raises BadEntry."""
        self.take("[")
        if self.next() == "]":
            return self.take("]")
        while True:
            yield self.value()
            if self.next() == "]":
                return self.take("]")
            self.take(",")

    def fields(self) -> Iterator[str]:
        """The names in the object that comes next; its value is to be taken before the next name. Raises BadEntry."""
        self.take("{")
        if self.next() == "}":
            return self.take("}")
        while True:
            name = self.value()
            if not isinstance(name, str):
                raise self.wrong("there should be a name")
            self.take(":")
            yield name
            if self.next() == "}":
                return self.take("}")
            self.take(",")

    def wrong(self, what: str, inside: int = 0) -> BadEntry:
        """The error that says where in the file something is wrong: so many characters after the next one."""
        early = "the file ends early: " if self._ended and self._at + inside >= len(self._text) else ""
        return BadEntry(f"{self._file.name}: character {self._before + self._at + inside}: {early}{what}")

    def _more(self) -> bool:
        """The text goes on after what there was; False at the end of the file."""
        if self._ended:
            return False
        part = self._file.read(PART_BYTES)
        self._ended = not part
        try:
            text = self._decode(part, final=self._ended)
        except UnicodeDecodeError as exc:
            raise self.wrong("no UTF-8 within the next characters") from exc
        self._text = self._text[self._at :] + text
        self._before += self._at
        self._at = 0
        return not self._ended
