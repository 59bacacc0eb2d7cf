"""The files that a gateway of deploy/gateway reads at run time."""
