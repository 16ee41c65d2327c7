"""The HTTP service: application, access, request bodies, problems, measurements."""
