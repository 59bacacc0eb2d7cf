"""What watches the calls: metrics for Prometheus, and the access log."""
