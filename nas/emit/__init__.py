"""Networks as files of runtimes."""
