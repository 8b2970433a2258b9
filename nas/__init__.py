"""The search and application layer: everything that knows about runs, files and users."""
