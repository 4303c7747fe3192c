"""Hyperparameter sweeps: one Optuna study, searched by any number of processes."""
