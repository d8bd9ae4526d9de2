"""Users, sessions, organizations, invitations and API keys."""
