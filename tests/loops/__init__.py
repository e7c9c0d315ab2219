"""Ten steps of objectives as their authors run them. `LOOPS`, by name: settings, and a loop written from what was
published, which knows of selfsup only the first weights and the forward passes of encoders and heads.
"""

from . import (
    captions,
    clips,
    clouds,
    contrasts,
    fused,
    gaussians,
    heard,
    joint,
    keys,
    large_batches,
    latents,
    masked,
    modalities,
    others,
    predictive,
    pretext,
    teachers,
    tokens,
)

MODULES = (
    large_batches,
    teachers,
    keys,
    contrasts,
    masked,
    modalities,
    others,
    predictive,
    pretext,
    tokens,
    latents,
    gaussians,
    captions,
    heard,
    joint,
    clips,
    fused,
    clouds,
)
LOOPS = {name: loop for module in MODULES for name, loop in module.LOOPS.items()}
