"""What several commands share: options, records, the progress display, the list of experiments."""
