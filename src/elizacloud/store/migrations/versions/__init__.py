"""One file a migration, in order; never changed once released."""
