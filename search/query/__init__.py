"""From a question to an answer: resolve, exclude, search, group, explain."""
