"""The bundled dense model: what it is made of, and how it is trained."""
