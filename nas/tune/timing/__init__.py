"""What policies take on a device: files timed beside each other, and the times of all learned from them."""
