"""The study of a length shortcut on a real language backbone."""
