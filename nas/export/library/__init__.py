"""Networks as native libraries."""
