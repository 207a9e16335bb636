"""Rows of data files and hub data sets, the values in them, and the images that they name.

Knows containers and no format of any benchmark, and no tensors: a package that has a record of its own reads into it
from here.
"""
