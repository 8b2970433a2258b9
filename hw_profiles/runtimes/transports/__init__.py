"""Where executables run: this machine, or a board that artifacts are carried to."""
