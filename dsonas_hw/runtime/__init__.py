"""What runs a network: one folder for each family of runtimes."""
