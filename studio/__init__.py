"""What the API orchestrates: services, providers, rendering, media. It knows neither Flask nor Connexion."""
