"""A bundle applied to files: evaluated on labelled ones, predicting others."""
