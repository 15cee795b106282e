"""Processes that fork others on request, and how processes of one worker talk: used by `supervisor` and `isolated`."""
