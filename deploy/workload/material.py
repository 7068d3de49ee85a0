"""Seeded raw material: names, prose and numbers that look as though people had entered them."""

from __future__ import annotations

from decimal import Decimal
from random import Random


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


_GIVEN = _listed(
    "Aino Juhan Mari Peeter Liis Toomas Kadri Jaan Õie Mihkel Ülle Rein Anu Kalev Tiina Märt Ene Priit Helgi Arvo "
    "Łukasz Zoë Renée Björn Søren Иван Ольга Νίκος 李明"
)
_SURNAMES = _listed(
    "Tamm Saar Sepp Mägi Kask Kukk Rebane Ilves Pärn Koppel Luik Oja Lepik Kuusk Raudsepp Põder Vaher O'Neill "
    "Müller Żółć Петров D'Angelo Smith-Jones"
)
_WORDS = _listed(
    "the and of shall state minister register person within days court property decision under paragraph section "
    "owner entry application fee provided notwithstanding accordance seadus määrus täht õigus ühis kinnistu otsus "
    "kohus riigi avaldus"
)
_BRANCHES = ("Ehitus", "Kaubandus", "Mets", "Meri", "Tarkvara", "Veod", "Trükk", "Piim")


def full_name(rng: Random) -> str:
    """Return a person's name, in one of several scripts."""
    return f"{rng.choice(_GIVEN)} {rng.choice(_SURNAMES)}"


def given_name(rng: Random) -> str:
    """Return a given name."""
    return rng.choice(_GIVEN)


def surname(rng: Random) -> str:
    """Return a surname, some with an apostrophe or a hyphen."""
    return rng.choice(_SURNAMES)


def company_name(rng: Random, number: int) -> str:
    """Return a name that no other company has, as long as ``number`` is its own."""
    return f"{rng.choice(_BRANCHES)} ja {rng.choice(_SURNAMES)} {number} OÜ"


def phrase(rng: Random, words: int) -> str:
    """Return a few words; now and then with the characters that text formats escape."""
    text = " ".join(rng.choices(_WORDS, k=words))
    if rng.random() < 0.1:
        text += rng.choice(
            ("\ttab", "\nline", "\\backslash", "\\N", '"quote"', "{brace,}", "\r", " ", "\x01", "'")
        )
    return text


def prose(rng: Random, size_bytes: int) -> str:
    """Return text of ``size_bytes`` bytes in UTF-8, or a few fewer where a letter would not fit; never none."""
    paragraph = " ".join(rng.choices(_WORDS, k=400))
    copies = size_bytes // len(paragraph.encode()) + 1
    # A number in each paragraph keeps compression honest without choosing every word anew.
    text = "\n".join(f"{rng.getrandbits(32):08x} {paragraph}" for _ in range(copies))
    return text.encode()[:size_bytes].decode(errors="ignore") or "§"


def euros(rng: Random, low: int, high: int) -> Decimal:
    """Return an amount between ``low`` and ``high`` euros, to the cent."""
    return Decimal(rng.randint(low * 100, high * 100)).scaleb(-2)
