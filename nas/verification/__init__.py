"""Whether exported networks still are what their manifests say."""
