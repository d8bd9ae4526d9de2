"""What the rest of studio stands on: settings, telemetry, HTTP client, publish and subscribe, slots."""
