"""Trainings that run elsewhere: each module hands a job to another program."""
