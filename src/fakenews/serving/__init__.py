"""Models behind a server: archives, TorchServe, deployments, and a gateway before it."""
