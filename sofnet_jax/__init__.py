"""SoF-Net, "Stop or Forward" (WACV 2023), in JAX and Flax."""
