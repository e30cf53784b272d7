"""crispdepth: give it what the sensor gave you, and get sharp metric depth."""
