"""Measuring: protocols, evaluation, reports."""
