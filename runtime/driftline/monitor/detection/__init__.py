"""What has certainly changed, since when, and the signals that say so."""
