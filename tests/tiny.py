"""The smallest encoder that tests train."""

BACKBONE = {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "width": 32, "depth": 1, "heads": 2}
