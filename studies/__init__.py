"""One file per study; each turns a config into a run folder. Imports load no torch until a study runs."""
