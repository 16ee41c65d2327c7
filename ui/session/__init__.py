"""State of a session: query, uploads, navigation, jobs."""
