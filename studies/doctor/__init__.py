"""What an engineer wants to know before a long audit: the machine, the model's attention, tokens, memory and time."""
