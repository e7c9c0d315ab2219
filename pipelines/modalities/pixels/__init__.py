"""Images as pixels: decoding, crops with antialiasing, photometric changes."""
