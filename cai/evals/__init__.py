"""Measuring: judges against people, principles against their own examples. Records in, figures out."""
