"""Reason and Restore: diagnose what is wrong with a photo, in words and numbers, then repair it accordingly."""
