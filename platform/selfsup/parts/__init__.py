"""Pieces that objectives share: heads, losses, EMA, queues, schedules. They know no objective."""
