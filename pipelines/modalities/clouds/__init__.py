"""Clouds of points: how files hold them, and how views of them are cut, turned and moved."""
