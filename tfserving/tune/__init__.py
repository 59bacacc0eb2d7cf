"""Finds the settings of a server that are best for a model, a load and a machine: `tfserving tune`.

docs/decisions/0029 says how it searches.
"""
