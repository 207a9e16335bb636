"""The bundled decoders beside the dense one: experts, and a hybrid with experts, under the dense model's own tower."""
