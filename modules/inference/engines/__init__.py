"""Inference backends behind one port."""
