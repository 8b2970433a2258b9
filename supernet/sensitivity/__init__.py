"""What each number format of each layer costs in quality."""
