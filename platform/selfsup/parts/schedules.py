"""What moves with the share t of training that is done, from 0 to 1; and with the depth of a weight."""

import math
import re


def cosine(t: float, start: float, end: float) -> float:
    """Half a cosine. Of a teacher's momentum with end = 1, BYOL's tau (arXiv 2006.07733), appendix J."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * t))


def ramp(t: float, start: float, end: float, until: float) -> float:
    """A straight line that arrives at the share `until`, and stays."""
    return end if t >= until else start + (end - start) * t / until


def layer_decay(name: str, depth: int, decay: float) -> float:
    """Return the scale of a plain ViT's weight, named as in an objective: `decay` for itself and each block above it.

    Other weights have 1. Embeddings count as the block below all others. As BEiT's (arXiv 2106.08254) in fine-tuning,
    and DINOv2's.
    """
    if ".trunk." not in name or ".trunk.norm." in name:
        return 1.0
    block = re.search(r"\.trunk\.blocks\.(\d+)\.", name)
    return decay ** (depth - int(block[1]) if block else depth + 1)
