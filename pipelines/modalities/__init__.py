"""Kinds of data, one a file; the folder is the registry. What a kind shares with others lies in a package beside it."""
