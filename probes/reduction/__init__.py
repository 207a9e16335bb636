"""Fewer tokens for the same pixels: images cut into tiles, and videos of which the model drops what stands still."""
