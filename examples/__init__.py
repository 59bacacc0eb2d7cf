"""Examples: the models of quickstart.sh, and a client that classifies handwritten digits with them."""
