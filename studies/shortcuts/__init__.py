"""Where does shortcut-aware learning help? Three environments, one visual truth, a map of methods."""
