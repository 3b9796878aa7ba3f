"""Numbers on the way in. Rationals are exact: no rounded number ever decides a schedule (SPEC 2.1).
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Rational
from typing import Any, Union

import numpy as np

RationalLike = Union[str, int, Fraction, Decimal, float]

_TEXT = re.compile(r"\d+(/\d+)?|\d*\.\d+|\d+\.")
_MAX_TERM = 10**9


def rational(name: str, value: RationalLike) -> Fraction:
    """``value`` as it was meant: a str such as "20/11" or "0.55", an int, Fraction or Decimal, or a
    float that its decimal spelling gives exactly (2.0, 0.5; not 0.55).

    Raises ValueError or TypeError naming ``name``, the value and what is taken.
    """
    exact = _exact(name, value)
    if exact < 0:
        raise ValueError(f"{name} {value}: a rational >= 0 such as 20/11, 0.55 or 3")
    if exact.numerator > _MAX_TERM or exact.denominator > _MAX_TERM:
        raise ValueError(f"{name} {value}: numerator and denominator of a rational are at most "
                         f"{_MAX_TERM}")
    return exact


def _exact(name: str, value: RationalLike) -> Fraction:
    if isinstance(value, bool):
        raise TypeError(f"{name} {value}: a rational, not a bool")
    if isinstance(value, str):
        text = value.strip()
        if len(text) > 64 or not _TEXT.fullmatch(text) or re.search(r"/0+$", text):
            raise ValueError(f"{name} {value[:64]!r}: a rational >= 0 such as 20/11, 0.55 or 3")
        return Fraction(text + "0" if text.endswith(".") else text)
    if isinstance(value, Decimal):
        if not value.is_finite() or abs(value.adjusted()) > 64:
            raise ValueError(f"{name} {value}: a rational >= 0 such as 20/11, 0.55 or 3")
        return Fraction(value)
    if isinstance(value, (Integral, Rational)):
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, float):
        return _of_float(name, value)
    raise TypeError(f"{name} {value!r}: a str, int, Fraction or Decimal")


def _of_float(name: str, value: float) -> Fraction:
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} {value}: a rational >= 0 such as 20/11, 0.55 or 3")
    meant = Fraction(repr(value))
    if meant != Fraction(value):
        simple = meant.limit_denominator(10_000)
        raise ValueError(f"{name} {value!r}: as a float it is {Decimal(value):.19f}; write "
                         f"'{value!r}' or Fraction({simple.numerator}, {simple.denominator})")
    return meant


def integer(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int in [low, high]; numpy integers and 3.0 are taken, True is not."""
    whole = value
    if isinstance(value, float) and value.is_integer():
        whole = int(value)
    if isinstance(whole, bool) or not isinstance(whole, Integral):
        raise TypeError(f"{name} {value!r}: an integer in [{low}, {high}]")
    number = int(whole)
    if not low <= number <= high:
        raise ValueError(f"{name} {number}: an integer in [{low}, {high}]")
    return number


def number(name: str, value: Any) -> float:
    """``value`` as a finite float."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise TypeError(f"{name} {value!r}: a number")
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{name} {value!r}: a number") from error
    if not math.isfinite(result):
        raise ValueError(f"{name} {result}: a finite number")
    return result
