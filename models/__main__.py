"""`python -m models …`: train, calibrate, evaluate and export the networks."""

from models.cli import app, without_the_extra

with without_the_extra():
    app()
