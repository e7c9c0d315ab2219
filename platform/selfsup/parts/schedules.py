"""What moves with the share t of training that is done, from 0 to 1."""

import math


def cosine(t: float, start: float, end: float) -> float:
    """Half a cosine. Of a teacher's momentum with end = 1, BYOL's tau (arXiv 2006.07733), appendix J."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * t))


def ramp(t: float, start: float, end: float, until: float) -> float:
    """A straight line that arrives at the share `until`, and stays."""
    return end if t >= until else start + (end - start) * t / until
