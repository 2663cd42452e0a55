"""What a program on a console needs: progress, signals, and silence of what is not its own."""
