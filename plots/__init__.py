"""Figures, tables and pages: drawn and told from results, or from what the program writes."""
