"""Releases: changes of models.config that are applied to servers, verified and recorded."""
