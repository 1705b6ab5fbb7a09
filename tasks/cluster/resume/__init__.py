"""Finishing or undoing what an interrupted command left."""
