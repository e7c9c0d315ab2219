"""Sweep files: studies, their axes and arms, searches, and what is run again to confirm them."""
