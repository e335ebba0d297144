"""`python -m models …`: train, calibrate, evaluate and export the networks."""

from models.cli import app

app()
