"""Bridges to other frameworks. Each needs packages of its own, and nothing in the core imports it."""
