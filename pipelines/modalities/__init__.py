"""Decoding, cropping and augmentation of samples, per modality."""
