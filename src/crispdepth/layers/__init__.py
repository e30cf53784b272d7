"""Pieces of networks that more than one model is made of."""
