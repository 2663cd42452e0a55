"""What a run leaves: its files, what it says at its end, and with what it ran."""
