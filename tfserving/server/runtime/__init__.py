"""Runtimes that load and run models."""
