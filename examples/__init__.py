"""The toolkit in use: the models of quickstart.sh, and a client that reads handwritten digits with them."""
