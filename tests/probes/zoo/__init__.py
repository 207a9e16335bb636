"""Tiny random models of every family that transformers maps images and text with."""
