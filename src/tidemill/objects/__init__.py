"""Objects where they really are: files, and S3-compatible stores. `region.open_region` is the way in."""
