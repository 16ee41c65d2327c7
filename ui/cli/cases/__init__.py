"""Commands about cases: what is known of them, and which are similar."""
