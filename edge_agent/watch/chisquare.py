"""Upper tail of the chi-square distribution, in logarithms, in plain Python.

Devices have no scipy. Series and continued fraction of the regularised incomplete gamma function:
Press et al., Numerical Recipes, 3rd ed., §6.2 (Lentz's method for the fraction).
"""

from __future__ import annotations

import math

_TINY = 1e-300
_EPSILON = 1e-15
_MAX_TERMS = 10_000


def log_survival(statistic: float, degrees: int) -> float:
    """ln P(X >= statistic) of chi-square with `degrees` >= 1 degrees of freedom."""
    if degrees < 1 or math.isnan(statistic):
        raise ValueError(f"chi-square of {statistic} with {degrees} degrees of freedom")
    if statistic <= 0:
        return 0.0
    if math.isinf(statistic):
        return -math.inf
    a, x = degrees / 2, statistic / 2
    log_front = a * math.log(x) - x - math.lgamma(a)
    if x < a + 1:
        return math.log1p(-min(_lower_series(a, x) * math.exp(log_front), 1 - 1e-16))
    return log_front + math.log(_upper_fraction(a, x))


def _lower_series(a: float, x: float) -> float:
    """P(a, x) without its front factor x^a e^-x / Γ(a)."""
    term = total = 1 / a
    for n in range(1, _MAX_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * _EPSILON:
            break
    return total


def _upper_fraction(a: float, x: float) -> float:
    """Q(a, x) without its front factor."""
    b = x + 1 - a
    c = 1 / _TINY
    d = 1 / b
    value = d
    for n in range(1, _MAX_TERMS):
        coefficient = -n * (n - a)
        b += 2
        d = coefficient * d + b
        d = 1 / (d if abs(d) > _TINY else _TINY)
        c = b + coefficient / c
        c = c if abs(c) > _TINY else _TINY
        value *= c * d
        if abs(c * d - 1) < _EPSILON:
            break
    return value
