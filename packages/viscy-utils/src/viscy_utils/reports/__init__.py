"""The one kit for reports: tables, files, numbers in words, panels. Commands compose it."""
