"""How samples of one kind are decoded, cropped and augmented."""
