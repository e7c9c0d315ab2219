"""Schedules over the share t of training that is done, from 0 to 1, and over the depth of a weight."""

import math
import re


def cosine(t: float, start: float, end: float) -> float:
    """Return half a cosine from start to end. To end = 1 it is BYOL's momentum, tau (arXiv 2006.07733), appendix J."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * t))


def ramp(t: float, start: float, end: float, until: float) -> float:
    """Return a straight line from start to end, reached at the share `until` and kept."""
    return end if t >= until else start + (end - start) * t / until


def cosine_ramp(t: float, start: float, end: float, until: float) -> float:
    """Return half a cosine from start to end, reached at the share `until` and kept."""
    return end if t >= until else cosine(t / until, start, end)


def layer_decay(name: str, depth: int, decay: float) -> float:
    """Return the learning-rate scale of a weight in a plain ViT: a factor `decay` for its block and each block above.

    Other weights have 1. Embeddings count as the block below all others. As in BEiT's fine-tuning (arXiv 2106.08254),
    and in DINOv2. name: of the parameter in an objective.
    """
    if ".trunk." not in name or ".trunk.norm." in name:
        return 1.0
    block = re.search(r"\.trunk\.blocks\.(\d+)\.", name)
    return decay ** (depth - int(block[1]) if block else depth + 1)
