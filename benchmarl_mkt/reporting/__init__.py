"""Reporting: statistics, tables and pictures of results."""
