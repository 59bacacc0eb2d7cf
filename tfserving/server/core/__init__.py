"""Which versions are to be served, which are, and how to get there: source, availability policy, manager."""
