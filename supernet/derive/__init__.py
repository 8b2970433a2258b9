"""What follows from a family's choices and its one `build`: costs, memory, elastic network, extraction."""
