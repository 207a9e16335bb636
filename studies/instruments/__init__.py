"""The parts of the scoreboard: measuring samples, reading them back, ranking the instruments, drawing the ranks."""
