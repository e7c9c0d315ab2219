"""Shards of samples: how they are made, indexed, stored, ordered and streamed to training workers."""
