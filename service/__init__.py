"""Sonomark: checks that ultrasound images carry the annotations a hospital requires."""

__version__ = "0.1.0"
