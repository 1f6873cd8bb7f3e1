"""What a GPU that is not here needs."""
