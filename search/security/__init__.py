"""API keys, OIDC tokens, rate limits and the audit log."""
