"""Encoders: text, images or both to float32 rows. One file per family."""
