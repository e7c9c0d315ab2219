"""Trainings of an encoder with a dense head on maps of pixels, a file each, which evaluations score.

They are in no catalogue of objectives: they say how good an encoder is to start from.
"""
