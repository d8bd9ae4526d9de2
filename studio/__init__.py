"""The services behind the API: accounts, generations, media, webhooks. Knows neither Flask nor Connexion."""
