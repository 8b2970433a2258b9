"""What data is and how the quality of a network on it is measured."""
