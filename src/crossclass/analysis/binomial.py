"""The exact binomial tail, without torch."""


def upper_tail(count: int, n: int, p: float) -> float:
    """P(Bin(n, p) >= count)."""
    from scipy.special import bdtrc  # slow to import

    return float(bdtrc(count - 1, n, p)) if count > 0 else 1.0
