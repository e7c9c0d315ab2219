"""Ten steps of objectives as their authors run them. `LOOPS`, by name: settings, and a loop written from what was
published, which knows of selfsup only the first weights and the forward passes of encoders and heads.
"""

from . import contrasts, keys, large_batches, others, predictive, pretext, teachers

LOOPS = large_batches.LOOPS | teachers.LOOPS | keys.LOOPS | contrasts.LOOPS | others.LOOPS | predictive.LOOPS
LOOPS |= pretext.LOOPS
