"""Compliance reports: rates with their uncertainty, and the files they are written to."""
