"""The six stages of a run and the report: each reads files and writes files, and resumes where it was
killed.
"""
