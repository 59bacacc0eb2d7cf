"""The `tfserving` command: one module per subcommand, for parsing and printing only."""
