"""The files of container/."""
