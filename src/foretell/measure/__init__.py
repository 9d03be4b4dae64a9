"""Instruments that every room shares: intervals, rates, graders."""
