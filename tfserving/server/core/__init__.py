"""What should be served, what is, and the steps between: source, policy, manager, versions."""
