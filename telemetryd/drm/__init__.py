"""GPUs as Linux shows them through DRM: cards, their clients, and what their collectors share."""
