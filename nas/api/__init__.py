"""What `import nas` offers: verbs are functions, results are frozen nouns."""
