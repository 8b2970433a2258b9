"""Device profiles: what layers cost on one device, measured or published."""
