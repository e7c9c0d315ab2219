"""Pieces that objectives and evaluations share: heads, losses, EMA, queues, schedules. They know none of these."""
