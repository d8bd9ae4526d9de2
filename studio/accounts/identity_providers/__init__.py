"""Sign in to organizations through their OpenID providers."""
