"""The agent for boards without Python, in C: runs self-contained libraries, and links to nothing there."""
