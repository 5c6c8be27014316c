"""The characters of the glyph families, and which may never be in different splits."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping

import attrs

LETTERS = "".join(
    chr(code)
    for code in [*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1), *range(0xC0, 0x180)]
    if chr(code) not in "×÷Đŉĸſ"  # signs; and letters that fonts draw as another one
)
SIGNS = "0123456789!?&@#$%*+/\\()[]{}<>=~^¡¿§¶©®£¥€¢†‡°µ«»‹›‰™±×÷½¼¾ªº¹²³ƒ≠≤≥∞√∫∂∑∏Ωπ◊¬"
STANDS_FOR = dict(zip("æœøđðħıĳŀłŋßþŧ", "aooddhiillnbpt", strict=True))
ALIKE = (
    "o0º°", "il1!¡¹j", "s5§$", "z2²", "b8", "g9q", "c€¢©", "r®", "x×", "p¶", "t†‡+±", "a@ª", "f∫ƒ", "l£",
    "y¥", "uµ", "3³", "%‰½¼¾", "?¿", "()", "[]", "{}", "<>‹›«»≤≥", "=≠", "/\\", "d∂", "n∏π", "v√", "m™",
)  # fmt: skip
"""What looks alike, or is the other's mirror image, goes together; a set that shares a sign joins another."""
VALIDATION = "cgwh3?*[~÷∞Ω"
TEST = "eunrk467&#({◊="
"""A sign of each group that is held out; all others are trained on."""


@attrs.frozen
class Character:
    """A class: what is drawn, and its split."""

    sign: str
    group: str
    split: str

    @property
    def name(self) -> str:
        """Of the class: code point and sign, so that nothing depends on fonts or case to tell it."""
        return f"U+{ord(self.sign):04X} {self.sign}"


def base(sign: str) -> str:
    """The letter under accents, in lower case (é, É and E are e); other signs are themselves."""
    if sign in SIGNS:
        return sign
    bare = unicodedata.normalize("NFD", sign.lower())[0]
    return STANDS_FOR.get(bare, bare)


@functools.cache
def groups() -> Mapping[str, str]:
    """Each base to the first sign of the group it is in."""
    leader = {base(sign): base(sign) for sign in LETTERS + SIGNS}
    for alike in ALIKE:
        joined = {leader[sign] for sign in alike}
        first = min(joined)
        leader = {sign: first if of in joined else of for sign, of in leader.items()}
    return leader


@functools.cache
def characters() -> tuple[Character, ...]:
    """Every class that a font may have, in the order of their splits and code points."""
    held = {groups()[sign]: "validation" for sign in VALIDATION}
    held |= {groups()[sign]: "test" for sign in TEST}
    found = [
        Character(sign, of := groups()[base(sign)], held.get(of, "train")) for sign in sorted(LETTERS + SIGNS)
    ]
    return tuple(sorted(found, key=lambda each: ("train", "validation", "test").index(each.split)))
