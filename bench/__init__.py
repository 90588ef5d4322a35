"""Measurements, as ratios in one run: machines are shared and noisy, so what is compared runs side by side."""
