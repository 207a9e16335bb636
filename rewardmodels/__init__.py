"""Train and question reward models. Empty in this release: nothing here is public yet."""
