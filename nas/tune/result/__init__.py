"""What comes out: files judged beside their references, the front of them, and which are exported."""
