"""A reader per published format of preferences.

A reader turns one raw row into one record. Where rows come from is not its business, nor what is done with them.
"""
