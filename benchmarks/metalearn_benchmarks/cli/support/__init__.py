"""What several commands share: options, records, progress."""
