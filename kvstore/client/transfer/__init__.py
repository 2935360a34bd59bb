"""Moving whole buckets in and out of files."""
