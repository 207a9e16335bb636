"""`sightcheck routing`: which experts a model sends its questions to. `command` is the way in."""
