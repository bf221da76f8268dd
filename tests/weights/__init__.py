"""Conversion of published weights."""
