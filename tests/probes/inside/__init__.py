"""Every probe of the inside of a decoder, on every tiny model that has experts or layers without softmax."""
